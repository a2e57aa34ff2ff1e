/*
Lets two functions of orchctl on AWS buy machines in a resource group of Azure, without a secret: AWS
vouches for their roles with a signed token of five minutes, and Azure takes it for a managed identity
(workload identity federation) with a role of exactly the rights that are used.
*/

locals {
  one          = var.enabled ? { this = true } : {}
  subscription = "/subscriptions/${var.subscription_id}"
  group        = "${local.subscription}/resourceGroups/${var.resource_group.name}"
  group_name   = var.enabled && var.resource_group.create ? azurerm_resource_group.this["this"].name : var.resource_group.name
  actions      = jsondecode(file("${path.module}/permissions.json"))
  audience     = "api://AzureADTokenExchange"
}

resource "azurerm_resource_group" "this" {
  for_each = { for key, yes in local.one : key => yes if var.resource_group.create }

  name     = var.resource_group.name
  location = var.resource_group.location
  tags     = var.tags
}

resource "azurerm_user_assigned_identity" "controller" {
  for_each = local.one

  name                = "orchctl-${var.name}"
  resource_group_name = local.group_name
  location            = var.resource_group.location
  tags                = var.tags
}

# One after the other: Azure refuses two at once for one identity.
resource "azurerm_federated_identity_credential" "reconcile" {
  for_each = local.one

  name                      = "reconcile"
  user_assigned_identity_id = azurerm_user_assigned_identity.controller["this"].id
  issuer                    = var.aws.issuer
  subject                   = var.aws.roles.reconcile
  audience                  = [local.audience]
}

resource "azurerm_federated_identity_credential" "prices" {
  for_each = local.one

  name                      = "prices"
  user_assigned_identity_id = azurerm_user_assigned_identity.controller["this"].id
  issuer                    = var.aws.issuer
  subject                   = var.aws.roles.prices
  audience                  = [local.audience]

  depends_on = [azurerm_federated_identity_credential.reconcile]
}

# ----------------------------------------------------------------------------- what it may do

resource "azurerm_role_definition" "this" {
  for_each = var.enabled ? {
    group        = { scope = local.group, says = "buys, finds and ends machines in its group" }
    subscription = { scope = local.subscription, says = "reads what is sold and how much of it may be bought" }
    networks     = { scope = local.subscription, says = "lets machines join networks" }
  } : {}

  name              = "orchctl-${var.name}-${each.key}"
  description       = "orchctl ${var.name}: ${each.value.says}"
  scope             = each.value.scope
  assignable_scopes = [each.value.scope]

  permissions {
    actions = local.actions[each.key]
  }

  depends_on = [azurerm_resource_group.this]
}

resource "azurerm_role_assignment" "this" {
  for_each = var.enabled ? merge(
    { group = { role = "group", scope = local.group }, subscription = { role = "subscription", scope = local.subscription } },
    { for id in var.networks : id => { role = "networks", scope = id } },
  ) : {}

  scope              = each.value.scope
  role_definition_id = azurerm_role_definition.this[each.value.role].role_definition_resource_id
  principal_id       = azurerm_user_assigned_identity.controller["this"].principal_id
  principal_type     = "ServicePrincipal"
}
