/*
The control plane of orchctl on AWS, with nothing that is always on: four functions of one zip behind
an HTTP API, a table, a bucket, two scheduled rules. The same stack as `serverless.yml`.
*/

data "aws_caller_identity" "this" {}
data "aws_partition" "this" {}
data "aws_region" "this" {}

locals {
  prefix    = "orchctl-${var.name}"
  account   = data.aws_caller_identity.this.account_id
  partition = data.aws_partition.this.partition
  region    = data.aws_region.this.region
  tags      = merge({ "orchctl" = var.name }, var.tags)
  one       = var.enabled ? { this = true } : {}
}
