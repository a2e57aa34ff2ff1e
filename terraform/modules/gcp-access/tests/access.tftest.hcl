# Who is let in, and what they may do. No account is needed: `terraform init && terraform test`.

mock_provider "google" {
  override_during = plan

  mock_resource "google_iam_workload_identity_pool" {
    defaults = { name = "projects/4711/locations/global/workloadIdentityPools/orchctl-prod" }
  }
  mock_resource "google_iam_workload_identity_pool_provider" {
    defaults = { name = "projects/4711/locations/global/workloadIdentityPools/orchctl-prod/providers/aws" }
  }
  mock_resource "google_service_account" {
    defaults = { email = "orchctl-prod-buys@acme-ml.iam.gserviceaccount.com", name = "projects/acme-ml/serviceAccounts/orchctl-prod-buys@acme-ml.iam.gserviceaccount.com" }
  }
}

variables {
  project = "acme-ml"
  aws = {
    account_id = "123456789012"
    roles = {
      reconcile = "arn:aws:iam::123456789012:role/apps/orchctl-prod-reconcile"
      prices    = "arn:aws:iam::123456789012:role/apps/orchctl-prod-prices"
    }
  }
}

run "only_the_roles" {
  command = plan

  assert {
    condition     = google_iam_workload_identity_pool_provider.this["this"].attribute_condition == "attribute.aws_role in ['arn:aws:sts::123456789012:assumed-role/orchctl-prod-prices', 'arn:aws:sts::123456789012:assumed-role/orchctl-prod-reconcile']"
    error_message = "Two roles of one account are let in, and nobody else."
  }
  assert {
    condition     = google_service_account_iam_member.federated["reconcile"].member == "principalSet://iam.googleapis.com/projects/4711/locations/global/workloadIdentityPools/orchctl-prod/attribute.aws_role/arn:aws:sts::123456789012:assumed-role/orchctl-prod-reconcile"
    error_message = "The account is lent to the role, not to the pool."
  }
}

run "what_is_needed" {
  command = plan

  assert {
    condition     = contains(google_project_iam_custom_role.this["this"].permissions, "compute.instances.create") && !contains(google_project_iam_custom_role.this["this"].permissions, "iam.serviceAccounts.actAs")
    error_message = "It buys machines; what it lends them is a right on that account alone."
  }
  assert {
    condition     = alltrue([for each in google_project_iam_custom_role.this["this"].permissions : !strcontains(each, "*")])
    error_message = "No right is a wildcard."
  }
  assert {
    condition     = google_service_account_iam_member.lent["this"].role == "roles/iam.serviceAccountUser"
    error_message = "Machines run as an account of their own."
  }
}

run "no_secret" {
  command = plan

  assert {
    condition     = jsondecode(output.credentials.credentials).type == "external_account" && jsondecode(output.credentials.credentials).audience == "//iam.googleapis.com/projects/4711/locations/global/workloadIdentityPools/orchctl-prod/providers/aws" && !strcontains(output.credentials.credentials, "private_key")
    error_message = "What the functions are told is no key."
  }
}

run "own_account_of_machines" {
  command = plan

  variables {
    machines = { service_account = "agents@acme-ml.iam.gserviceaccount.com" }
  }

  assert {
    condition     = length(google_service_account.machine) == 0 && output.machines.service_account == "agents@acme-ml.iam.gserviceaccount.com"
    error_message = "An account that exists is used."
  }
}

run "nothing" {
  command = plan

  variables {
    enabled = false
  }

  assert {
    condition = length(flatten([
      values(google_project_service.this), values(google_iam_workload_identity_pool.this), values(google_iam_workload_identity_pool_provider.this),
      values(google_service_account.controller), values(google_service_account.machine), values(google_service_account_iam_member.federated),
      values(google_service_account_iam_member.lent), values(google_project_iam_custom_role.this), values(google_project_iam_member.this),
    ])) == 0
    error_message = "`enabled = false` makes nothing."
  }
  assert {
    condition     = output.credentials == null && output.controller == null && output.machines == null && output.pool == null
    error_message = "What is not made is not put out."
  }
}
