"""A point in the user's hand: folders that load without this package, ONNX, the model card, latency."""
