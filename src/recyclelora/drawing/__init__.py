"""Pictures: how every figure looks, and sheets made of images."""
