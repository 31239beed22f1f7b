#!/bin/sh
# The compiler of schemas that a Python package brings; PROTOC_PYTHON has that package.
exec "$PROTOC_PYTHON" -m grpc_tools.protoc "$@"
