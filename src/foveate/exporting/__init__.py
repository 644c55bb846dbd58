"""A trained network as an ONNX file that has proved what it gives; apart from where its images come from."""
