output "credentials" {
  description = "For `clouds.azure` of the module `control-plane`. Neither is a secret: only the roles are let in."
  value = var.enabled ? {
    tenant_id = azurerm_user_assigned_identity.controller["this"].tenant_id
    client_id = azurerm_user_assigned_identity.controller["this"].client_id
  } : null
}

output "controller" {
  description = "The managed identity that buys."
  value = var.enabled ? {
    id           = azurerm_user_assigned_identity.controller["this"].id
    principal_id = azurerm_user_assigned_identity.controller["this"].principal_id
  } : null
}

output "machines" {
  description = "For `subscription` and `resource_group` of a document's `azure`."
  value = var.enabled ? {
    subscription   = var.subscription_id
    resource_group = local.group_name
  } : null
}
