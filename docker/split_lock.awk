# Split a hashed lock: torch.txt (torch, torchvision and CUDA), packages.txt (the rest), torch_versions.txt (no hashes).
/^[A-Za-z0-9]/ {
    file = /^(torch|torchvision|triton|nvidia-|cuda-)/ ? "torch.txt" : "packages.txt"
    if (/^(torch|torchvision)==/) print $1 > "torch_versions.txt"
}
file { print > file }
