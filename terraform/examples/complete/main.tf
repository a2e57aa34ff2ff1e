# Everything that can be said. `config.yaml` is not applied by Terraform: pools have one owner, the API
# (docs/how-to/deploy-with-terraform.md).

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

  default_tags {
    tags = { team = "research" }
  }
}

variable "zip" {
  description = "What `make lambda ARGS=--arch=arm64` made."
  type        = string
  default     = "../../../dist/orchctl-lambda.zip"
}

variable "admin_token_sha256" {
  description = "Of a token that you keep: `printf %s \"$TOKEN\" | sha256sum`."
  type        = string
}

variable "notices_token_sha256" {
  description = "Of the token that Azure sends notices with."
  type        = string
}

module "package" {
  source = "../../modules/package"

  name = "acme-orchctl-package"
  zip  = var.zip
}

# Encrypted by the key of SNS itself; CloudWatch may not use it, so the topic is open to alarms only.
resource "aws_sns_topic" "alarms" {
  #checkov:skip=CKV_AWS_26:alarms of CloudWatch can not be sent to a topic under the key of SNS, and one's own key costs more than the whole plane
  name = "orchctl-alarms"
}

module "orchctl" {
  source = "../../modules/control-plane"

  name    = "research"
  package = module.package.package

  access = {
    admin_token_sha256   = var.admin_token_sha256
    notices_token_sha256 = var.notices_token_sha256
  }

  functions = {
    runtime      = "python3.12"
    architecture = "arm64"
    memory_mib   = 1536
    tracing      = true
  }

  api = {
    public_url          = "https://orchctl.example.com"
    requests_per_second = 200
    burst               = 400
  }

  schedule = {
    look   = "rate(1 minute)"
    prices = "rate(10 minutes)"
  }

  retention = {
    log_days               = 365
    job_days               = 400
    dead_letter_days       = 14
    point_in_time_recovery = true
    deletion_protection    = true
  }

  alarms = {
    topics                 = [aws_sns_topic.alarms.arn]
    oldest_waiting_minutes = 30
    stale_minutes          = 5
  }

  iam  = { path = "/orchctl/" }
  tags = { cost-center = "4711" }
}

output "orchctl" {
  description = "All that is put out."
  value       = module.orchctl
}

output "apply" {
  description = "What CI runs after `terraform apply`, with ORCHCTL_TOKEN in its secrets."
  value       = "orchctl autoscaler apply --server ${module.orchctl.api.url} --yes config.yaml"
}
