"""What computes the network: torch, OpenVINO or ONNX Runtime, behind one call."""
