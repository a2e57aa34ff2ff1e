output "credentials" {
  description = "For `clouds.gcp` of the module `control-plane`. There is no secret in it: it says whom to ask, and only the roles are answered."
  value = var.enabled ? {
    credentials = jsonencode({
      type                              = "external_account"
      audience                          = "//iam.googleapis.com/${google_iam_workload_identity_pool_provider.this["this"].name}"
      subject_token_type                = "urn:ietf:params:aws:token-type:aws4_request"
      token_url                         = "https://sts.googleapis.com/v1/token"
      service_account_impersonation_url = "https://iamcredentials.googleapis.com/v1/projects/-/serviceAccounts/${google_service_account.controller["this"].email}:generateAccessToken"
      credential_source = {
        environment_id                 = "aws1"
        regional_cred_verification_url = "https://sts.{region}.amazonaws.com?Action=GetCallerIdentity&Version=2011-06-15"
      }
    })
  } : null
}

output "controller" {
  description = "The service account that buys, and its role."
  value = var.enabled ? {
    email = google_service_account.controller["this"].email
    role  = google_project_iam_custom_role.this["this"].name
  } : null
}

output "machines" {
  description = "For `project` and `service_account` of a document's `gcp`."
  value = var.enabled ? {
    project         = var.project
    service_account = local.machine_account
  } : null
}

output "pool" {
  description = "The workload identity pool and its provider."
  value = var.enabled ? {
    name     = google_iam_workload_identity_pool.this["this"].name
    provider = google_iam_workload_identity_pool_provider.this["this"].name
  } : null
}
