"""The model store, the KServe server and its page, and how to run and query them locally."""

# The model's name at an endpoint, and the ports that KServe's servers listen on.
NAME = "cxrflow"
PORT = 8080
GRPC_PORT = 8081
