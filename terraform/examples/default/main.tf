# The least there is to say: a zip, and the hash of a token.

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

module "orchctl" {
  source = "../../modules/control-plane"

  package = module.package.package
  access  = { admin_token_sha256 = var.admin_token_sha256 }
}

output "url" {
  description = "For `orchctl context add`."
  value       = module.orchctl.api.url
}

output "machines" {
  description = "What a document's `aws` names."
  value       = module.orchctl.machines
}
