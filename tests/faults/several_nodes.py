"""Run a Ray cluster of several nodes until killed: ``several_nodes.py CPUS CPUS ...``, the head first.

Prints the address, and the process id and Ray's name of each raylet.
"""

import json
import sys
import time

from ray.cluster_utils import Cluster

head, *others = [int(word) for word in sys.argv[1:]]
cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": head})
nodes = [cluster.head_node, *(cluster.add_node(num_cpus=cpus) for cpus in others)]
raylets = [node.all_processes["raylet"][0].process for node in nodes]
facts = {
    "address": cluster.address,
    "raylets": [raylet.pid for raylet in raylets],
    "ray_ids": [node.node_id for node in nodes],
}
print(json.dumps(facts), flush=True)
while True:
    for raylet in raylets:
        raylet.poll()  # takes note of its end; a zombie would count as alive
    time.sleep(0.2)
