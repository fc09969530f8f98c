"""What learned agents are raced against: TVM's own tuners, no tuning at all, vendors' kernels."""
