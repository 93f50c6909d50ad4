"""Forecasts in JSON, scored when the truth arrives. See README.md."""

from raytensor.config.subnets import Subnet

SUBNET = Subnet(
    mechanism="forecast.mechanism.Forecast",
    responder="forecast.responder.Forecaster",
    defaults=(
        "data=bytes",
        "data.max_documents=200",
        "rounds=12",
        "miners.num_miners=4",
        "validators.num_validators=1",
    ),
    docs="Miners forecast the next values of a series; each is paid by its error once the values are known.",
)
