"""``ray start`` for a node that listens on this machine's loopback alone: ``python cluster/node.py [--head] ...``.

Ray replaces 127.0.0.1 by an address that others can reach, and then listens on all interfaces, unless it believes to be
on an operating system where it makes no clusters of several machines. There it uses the loopback, but lets no second
node join. So the node starts as usual, with the loopback as its address, and what it starts is told the other thing.
"""

import os
import sys

from ray._private import ray_constants, services
from ray.scripts.scripts import cli

services.get_node_ip_address = lambda address=None: "127.0.0.1"
os.environ[ray_constants.ENABLE_RAY_CLUSTERS_ENV_VAR] = "0"
cli.main(["start", "--node-ip-address", "127.0.0.1", *sys.argv[1:]])
