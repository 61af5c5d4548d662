"""Engines, which run a backbone on frames: PyTorch, or ONNX Runtime, which is about twice as fast on a CPU."""
