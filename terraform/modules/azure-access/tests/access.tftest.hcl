# Who is let in, and what they may do. No account is needed: `terraform init && terraform test`.

mock_provider "azurerm" {
  override_during = plan

  mock_resource "azurerm_user_assigned_identity" {
    defaults = {
      id           = "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/orchctl/providers/Microsoft.ManagedIdentity/userAssignedIdentities/orchctl-prod"
      client_id    = "66666666-7777-8888-9999-000000000000"
      tenant_id    = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee"
      principal_id = "ffffffff-0000-1111-2222-333333333333"
    }
  }
}

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

run "only_the_roles" {
  command = plan

  assert {
    condition     = [azurerm_federated_identity_credential.reconcile["this"].subject, azurerm_federated_identity_credential.prices["this"].subject] == ["arn:aws:iam::123456789012:role/orchctl-prod-reconcile", "arn:aws:iam::123456789012:role/orchctl-prod-prices"]
    error_message = "Two roles of one account are let in, and nobody else."
  }
  assert {
    condition     = azurerm_federated_identity_credential.reconcile["this"].audience == tolist(["api://AzureADTokenExchange"])
    error_message = "A token for somebody else lets nobody in."
  }
}

run "what_is_needed" {
  command = plan

  assert {
    condition     = azurerm_role_assignment.this["group"].scope == "/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/orchctl"
    error_message = "Machines are bought and ended in their group alone."
  }
  assert {
    condition     = azurerm_role_definition.this["subscription"].permissions[0].actions == tolist(["Microsoft.Compute/locations/usages/read", "Microsoft.Compute/skus/read"])
    error_message = "Beyond the group it reads what is sold."
  }
  assert {
    condition     = alltrue([for each in azurerm_role_definition.this : alltrue([for action in each.permissions[0].actions : !strcontains(action, "*")])])
    error_message = "No right is a wildcard."
  }
  assert {
    condition     = join(" ", keys(azurerm_role_assignment.this)) == "group subscription"
    error_message = "Networks of others are joined only where they are named."
  }
}

run "networks_of_others" {
  command = plan

  variables {
    networks = ["/subscriptions/11111111-2222-3333-4444-555555555555/resourceGroups/net"]
  }

  assert {
    condition     = length(azurerm_role_assignment.this) == 3
    error_message = "A network that is named is joined."
  }
}

run "group_that_exists" {
  command = plan

  variables {
    resource_group = { name = "ml", location = "westeurope", create = false }
  }

  assert {
    condition     = length(azurerm_resource_group.this) == 0 && output.machines.resource_group == "ml"
    error_message = "A group that exists is used."
  }
}

run "no_secret" {
  command = plan

  assert {
    condition     = output.credentials == { client_id = "66666666-7777-8888-9999-000000000000", tenant_id = "aaaaaaaa-bbbb-cccc-dddd-eeeeeeeeeeee" }
    error_message = "What the functions are told is no secret."
  }
}

run "nothing" {
  command = plan

  variables {
    enabled = false
  }

  assert {
    condition = length(flatten([
      values(azurerm_resource_group.this), values(azurerm_user_assigned_identity.controller), values(azurerm_federated_identity_credential.reconcile),
      values(azurerm_federated_identity_credential.prices), values(azurerm_role_definition.this), values(azurerm_role_assignment.this),
    ])) == 0
    error_message = "`enabled = false` makes nothing."
  }
  assert {
    condition     = output.credentials == null && output.controller == null && output.machines == null
    error_message = "What is not made is not put out."
  }
}
