# What is refused, before anything is made: each variable of a run has one fault.

mock_provider "azurerm" {}

variables {
  subscription_id = "11111111-2222-3333-4444-555555555555"
  resource_group  = { location = "westeurope" }
  aws = {
    issuer = "https://0f0f0f0f.tokens.sts.global.api.aws"
    roles = {
      reconcile = "arn:aws:iam::123456789012:role/orchctl-prod-reconcile"
      prices    = "arn:aws:iam::123456789012:role/orchctl-prod-prices"
    }
  }
}

run "what_is_written_otherwise" {
  command = plan

  variables {
    name            = "Prod"
    subscription_id = "Pay-As-You-Go"
    aws             = { issuer = "0f0f.tokens.sts.global.api.aws", roles = { reconcile = "arn:aws:iam::123456789012:role/r", prices = "arn:aws:iam::123456789012:role/p" } }
    resource_group  = { name = "a group", location = "westeurope" }
  }

  expect_failures = [var.name, var.subscription_id, var.aws, var.resource_group]
}

run "what_is_none" {
  command = plan

  variables {
    networks = ["my-network"]
    aws      = { issuer = "https://0f0f.tokens.sts.global.api.aws", roles = { reconcile = "arn:aws:iam::123456789012:user/r", prices = "arn:aws:iam::123456789012:role/p" } }
  }

  expect_failures = [var.aws, var.networks]
}
