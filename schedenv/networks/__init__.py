"""Networks: from an ONNX file to a verified, faster model.

`prepare` imports a file and takes its kernels out as tasks; `tune_network` spends a budget on them
where the network gains, puts the best schedules back, compiles, verifies against ONNX Runtime and
times the result beside it.
"""
