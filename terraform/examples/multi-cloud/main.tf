# Machines at AWS, Google Cloud and Azure, and not one key: each of the others believes the role that
# the functions have in AWS.

terraform {
  required_version = ">= 1.9"

  required_providers {
    aws = {
      source  = "hashicorp/aws"
      version = "~> 6.0"
    }
    azurerm = {
      source  = "hashicorp/azurerm"
      version = "~> 5.0"
    }
    google = {
      source  = "hashicorp/google"
      version = "~> 8.0"
    }
  }
}

provider "aws" {
  region = "eu-central-1"
}

provider "azurerm" {
  features {}
  subscription_id = var.azure_subscription
}

provider "google" {
  project = var.google_project
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

variable "google_project" {
  description = "Where machines are bought at Google Cloud."
  type        = string
}

variable "azure_subscription" {
  description = "Where machines are bought at Azure."
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

  clouds = {
    gcp   = module.google.credentials
    azure = module.azure.credentials
  }
}

module "google" {
  source = "../../modules/gcp-access"

  project = var.google_project
  aws     = module.orchctl.clouds
}

# Lets the account vouch for its roles. There is one for an account: import it where it is on already.
resource "aws_iam_outbound_web_identity_federation" "this" {}

module "azure" {
  source = "../../modules/azure-access"

  subscription_id = var.azure_subscription
  resource_group  = { location = "westeurope" }

  aws = {
    issuer = aws_iam_outbound_web_identity_federation.this.issuer_identifier
    roles  = module.orchctl.clouds.roles
  }
}

output "url" {
  description = "For `orchctl context add`."
  value       = module.orchctl.api.url
}

output "machines" {
  description = "What a document's clouds name."
  value = {
    aws   = module.orchctl.machines
    gcp   = module.google.machines
    azure = module.azure.machines
  }
}
