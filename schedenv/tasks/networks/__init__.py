"""Networks as sources of tasks: an ONNX file read, prepared, and taken apart into its kernels."""
