"""What computes the network: torch, OpenVINO or ONNX Runtime, each a file of its own behind one protocol."""
