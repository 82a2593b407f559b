"""Small networks on features: recipes' sections, scaling, windows, losses, one training loop, and export to ONNX."""
