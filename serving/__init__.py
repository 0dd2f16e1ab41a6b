"""The model store, the KServe server, and its local use."""

# The model's name at an endpoint, and the port that KServe's servers listen on.
NAME = "cxrflow"
PORT = 8080
