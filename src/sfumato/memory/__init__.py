"""How much memory a request will take, before anything is loaded, and how it is made to fit what there is.

Weights are counted from the files' headers. What the networks hold while they run is counted by running them without
numbers, on PyTorch's meta device, and corrected by what was measured (`python -m bench.memory`).
"""
