"""Run a Ray cluster of two nodes until killed; prints the address and the process id of the second raylet."""

import json
import time

from ray.cluster_utils import Cluster

cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 1})
second = cluster.add_node(num_cpus=1)
raylet = second.all_processes["raylet"][0].process
print(json.dumps({"address": cluster.address, "raylet": raylet.pid}), flush=True)
while True:
    raylet.poll()  # takes note of its end; a zombie would count as alive
    time.sleep(0.2)
