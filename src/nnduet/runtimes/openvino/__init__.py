"""What makes OpenVINO's graphs fast and exact: replaced layers, each equal to the one it replaces."""
