"""Pictures with a hole, as arrays. See README.md."""

from raytensor.config.subnets import Subnet

SUBNET = Subnet(
    mechanism="inpainting.mechanism.Inpainting",
    responder="inpainting.responder.Painter",
    defaults=("data=bytes", "data.max_documents=200", "rounds=3", "miners.num_miners=4", "validators.num_validators=1"),
    docs="Validators send pictures with a hole, miners fill it, and are paid by how near they come to the original.",
)
