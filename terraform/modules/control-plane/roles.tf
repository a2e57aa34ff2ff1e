# A role for each function, and for what ends a machine at its deadline, with what
# `infra/iam/permissions.py` says that it needs and why. The files in policies/ are made from that table.

locals {
  roles = var.enabled ? {
    api          = "lambda"
    reconcile    = "lambda"
    interruption = "lambda"
    prices       = "lambda"
    life_limit   = "scheduler"
  } : {}

  trusted = {
    for service in ["ec2", "lambda", "scheduler"] : service => jsonencode({
      Version = "2012-10-17"
      Statement = [merge(
        { Effect = "Allow", Principal = { Service = "${service}.amazonaws.com" }, Action = "sts:AssumeRole" },
        # It acts for many accounts, and takes up the role for this one alone.
        service == "scheduler" ? { Condition = { StringEquals = { "aws:SourceAccount" = local.account } } } : null,
      )]
    })
  }

  words = var.enabled ? {
    account         = local.account
    bucket          = aws_s3_bucket.this["this"].arn
    dead_letters    = aws_sqs_queue.dead_letters["this"].arn
    installation    = var.name
    life_limit_role = aws_iam_role.this["life_limit"].arn
    machine_role    = aws_iam_role.machine["this"].arn
    partition       = local.partition
    prefix          = local.prefix
    reconcile       = "arn:${local.partition}:lambda:${local.region}:${local.account}:function:${local.prefix}-reconcile"
    region          = local.region
    table           = aws_dynamodb_table.this["this"].arn
  } : {}
}

resource "aws_iam_role" "this" {
  for_each = local.roles

  name                 = "${local.prefix}-${replace(each.key, "_", "-")}"
  description          = "What orchctl's ${replace(each.key, "_", " ")} may do"
  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  assume_role_policy   = local.trusted[each.value]
  tags                 = local.tags
}

resource "aws_iam_role_policy" "this" {
  for_each = local.roles

  name   = each.key
  role   = aws_iam_role.this[each.key].name
  policy = templatefile("${path.module}/policies/${each.key}.json.tftpl", local.words)
}

# A token by which Azure believes that a function has this role; STS knows no resource for it.
resource "aws_iam_role_policy" "azure" {
  for_each = toset(var.enabled && var.clouds.azure != null ? local.callers : [])

  name = "azure"
  role = aws_iam_role.this[each.key].name

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Effect   = "Allow"
      Action   = "sts:GetWebIdentityToken"
      Resource = "*"
      Condition = {
        "ForAllValues:StringEquals" = { "sts:IdentityTokenAudience" = "api://AzureADTokenExchange" }
        NumericLessThanEquals       = { "sts:DurationSeconds" = "300" }
      }
    }]
  })
}

# Machines prove who they are by it; it may do nothing.
resource "aws_iam_role" "machine" {
  for_each = local.one

  name                 = "orchctl-machine-${var.name}"
  description          = "By which machines of orchctl prove who they are; it may do nothing"
  path                 = var.iam.path
  permissions_boundary = var.iam.permissions_boundary
  assume_role_policy   = local.trusted.ec2
  tags                 = local.tags
}

resource "aws_iam_instance_profile" "machine" {
  for_each = local.one

  name = aws_iam_role.machine["this"].name
  path = var.iam.path
  role = aws_iam_role.machine["this"].name
  tags = local.tags
}
