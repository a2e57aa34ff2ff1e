"""Terraform providers for tests: the true schemas, and no cloud behind them.

`hashicorp/aws`, `hashicorp/google` and `hashicorp/azurerm` for the real Terraform: `init`,
`validate`, `plan` and `test` work offline. What they know of a resource is its schema
(`tests/fakes/specs/terraform`): values that only a real provider refuses are accepted, and no
change means a replacement. A few resources of AWS are made for real, by boto3, wherever
`AWS_ENDPOINT_URL` points (`resources.py`); applying any other is refused.

It runs in an environment of its own (`make emulators`), started by Terraform.
"""
