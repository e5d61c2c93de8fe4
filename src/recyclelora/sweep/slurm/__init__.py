"""Units as SLURM jobs, and the driver as one."""
