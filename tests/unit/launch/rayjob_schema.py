"""The fields of a KubeRay RayJob (ray.io/v1) that cluster/rayjob.yaml may use, as a JSON schema of our own.

Names, types and required fields after KubeRay's Go types (ray-operator/apis/ray/v1/rayjob_types.go and
raycluster_types.go) and, for pods, Kubernetes' core/v1. What is not listed here is refused, so a misspelt
field cannot pass as one that the operator would drop.
"""

from typing import Any

Schema = dict[str, Any]

TEXT: Schema = {"type": "string", "minLength": 1}
COUNT: Schema = {"type": "integer", "minimum": 0, "maximum": 2**31 - 1}
FLAG: Schema = {"type": "boolean"}
TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
QUANTITY: Schema = {"type": "string", "pattern": r"^[0-9]+(\.[0-9]+)?(m|k|[KMGTPE]i?)?$"}


def fields(required: str = "", **properties: Schema) -> Schema:
    """An object with these fields and no others; the required ones are separated by spaces."""
    return {
        "type": "object",
        "properties": properties,
        "required": required.split(),
        "additionalProperties": False,
    }


def items(item: Schema) -> Schema:
    return {"type": "array", "items": item, "minItems": 1}


KEY_REF = fields("key name", key=TEXT, name=TEXT, optional=FLAG)
VARIABLE: Schema = {
    **fields("name", name=TEXT, value={"type": "string"}, valueFrom=fields(secretKeyRef=KEY_REF)),
    "oneOf": [{"required": ["value"]}, {"required": ["valueFrom"]}],
}
AMOUNTS: Schema = {"type": "object", "additionalProperties": QUANTITY}
PORT = fields("containerPort", containerPort={**COUNT, "minimum": 1, "maximum": 65535}, name=TEXT)
CONTAINER = fields(
    "name image",
    name=TEXT,
    image=TEXT,
    workingDir={"type": "string", "pattern": "^/"},
    env=items(VARIABLE),
    ports=items(PORT),
    resources=fields(requests=AMOUNTS, limits=AMOUNTS),
    volumeMounts=items(
        fields(
            "name mountPath",
            name=TEXT,
            mountPath={"type": "string", "pattern": "^/"},
            readOnly=FLAG,
        )
    ),
)
VOLUME: Schema = {
    **fields(
        "name",
        name=TEXT,
        persistentVolumeClaim=fields("claimName", claimName=TEXT, readOnly=FLAG),
        emptyDir=fields(medium={"enum": ["", "Memory"]}, sizeLimit=QUANTITY),
    ),
    "oneOf": [{"required": ["persistentVolumeClaim"]}, {"required": ["emptyDir"]}],
}
POD_TEMPLATE = fields(
    "spec",
    metadata=fields(labels=TEXTS, annotations=TEXTS),
    spec=fields(
        "containers",
        containers=items(CONTAINER),
        volumes=items(VOLUME),
        terminationGracePeriodSeconds=COUNT,
        nodeSelector=TEXTS,
        serviceAccountName=TEXT,
    ),
)
HEAD_GROUP = fields("rayStartParams template", rayStartParams=TEXTS, template=POD_TEMPLATE)
WORKER_GROUP = fields(
    "groupName minReplicas maxReplicas rayStartParams template",
    groupName=TEXT,
    replicas=COUNT,
    minReplicas=COUNT,
    maxReplicas=COUNT,
    numOfHosts=COUNT,
    rayStartParams=TEXTS,
    template=POD_TEMPLATE,
)
RAY_CLUSTER_SPEC = fields(
    "headGroupSpec",
    rayVersion={"type": "string", "pattern": r"^\d+\.\d+\.\d+$"},
    authOptions=fields(mode={"enum": ["disabled", "token"]}, secretName=TEXT),
    headGroupSpec=HEAD_GROUP,
    workerGroupSpecs=items(WORKER_GROUP),
)
RAY_JOB = fields(
    "apiVersion kind metadata spec",
    apiVersion={"const": "ray.io/v1"},
    kind={"const": "RayJob"},
    metadata=fields("name", name={"type": "string", "pattern": "^[a-z0-9-]{1,47}$"}, labels=TEXTS),
    spec=fields(
        "entrypoint rayClusterSpec",
        entrypoint=TEXT,
        submissionMode={"enum": ["K8sJobMode", "HTTPMode", "InteractiveMode"]},
        backoffLimit=COUNT,
        activeDeadlineSeconds={**COUNT, "minimum": 1},
        shutdownAfterJobFinishes=FLAG,
        ttlSecondsAfterFinished=COUNT,
        runtimeEnvYAML=TEXT,
        suspend=FLAG,
        rayClusterSpec=RAY_CLUSTER_SPEC,
    ),
)
