"""OpenVINO: its runtime, and what makes its graphs fast and exact: replaced layers, each equal to the one it replaces."""
