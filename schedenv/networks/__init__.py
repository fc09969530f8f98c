"""Networks: from a file to a verified, faster model.

`tune_network` spends a budget on the kernels of a prepared network (`schedenv.tasks.networks`)
where the network gains, puts the best schedules back, compiles, verifies against ONNX Runtime (for
an exported torch program, torch) and times the result beside it.
"""
