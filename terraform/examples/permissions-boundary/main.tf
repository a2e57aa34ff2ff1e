# For accounts in which no role may be made without a boundary. It bounds what any of the roles could
# ever do, whatever its own policy says: the module's policies allow much less.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
  }
}

provider "aws" {
  region = "eu-central-1"
}

variable "zip" {
  description = "What `make lambda` made."
  type        = string
  default     = "../../../dist/orchctl-lambda.zip"
}

variable "admin_token_sha256" {
  description = "Of a token that you keep: `printf %s \"$TOKEN\" | sha256sum`."
  type        = string
}

module "package" {
  source = "../../modules/package"

  zip = var.zip
}

resource "aws_iam_policy" "boundary" {
  #checkov:skip=CKV_AWS_355:a boundary allows nothing by itself; what is allowed is named in the module's policies
  #checkov:skip=CKV_AWS_286:a boundary allows nothing by itself; what is allowed is named in the module's policies
  #checkov:skip=CKV_AWS_287:a boundary allows nothing by itself; what is allowed is named in the module's policies
  #checkov:skip=CKV_AWS_288:a boundary allows nothing by itself; what is allowed is named in the module's policies
  #checkov:skip=CKV_AWS_289:a boundary allows nothing by itself; what is allowed is named in the module's policies
  #checkov:skip=CKV_AWS_290:a boundary allows nothing by itself; what is allowed is named in the module's policies
  name        = "orchctl-boundary"
  path        = "/boundaries/"
  description = "The most that roles of orchctl may ever do"

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid      = "ServicesInUse"
      Effect   = "Allow"
      Action   = [for service in ["dynamodb", "ec2", "lambda", "logs", "s3", "scheduler", "servicequotas", "sqs", "ssm", "xray"] : "${service}:*"]
      Resource = "*"
      }, {
      Sid      = "RolesOfMachines"
      Effect   = "Allow"
      Action   = ["iam:CreateServiceLinkedRole", "iam:PassRole", "sts:GetWebIdentityToken"]
      Resource = "*"
    }]
  })
}

module "orchctl" {
  source = "../../modules/control-plane"

  package = module.package.package
  access  = { admin_token_sha256 = var.admin_token_sha256 }

  iam = {
    path                 = "/apps/"
    permissions_boundary = aws_iam_policy.boundary.arn
  }
}

output "url" {
  description = "For `orchctl context add`."
  value       = module.orchctl.api.url
}
