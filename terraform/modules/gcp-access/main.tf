/*
Lets two functions of orchctl on AWS buy machines in a project of Google Cloud, without a key: Google
asks AWS whether the caller has one of two roles (workload identity federation), and lends it a service
account with a role of exactly the rights that are used.
*/

locals {
  one  = var.enabled ? { this = true } : {}
  apis = ["cloudbilling", "compute", "iam", "iamcredentials", "sts"]

  # What AWS's STS calls a session of a role: without its path.
  sessions = {
    for name, arn in var.aws.roles : name =>
    "arn:${split(":", arn)[1]}:sts::${var.aws.account_id}:assumed-role/${reverse(split("/", arn))[0]}"
  }

  machine_account = var.enabled ? coalesce(var.machines.service_account, one(values(google_service_account.machine)[*].email)) : ""
}

resource "google_project_service" "this" {
  for_each = toset(var.enabled && var.apis ? local.apis : [])

  project            = var.project
  service            = "${each.value}.googleapis.com"
  disable_on_destroy = false
}

resource "google_iam_workload_identity_pool" "this" {
  for_each = local.one

  project                   = var.project
  workload_identity_pool_id = "orchctl-${var.name}"
  display_name              = "orchctl ${var.name}"
  description               = "orchctl's control plane on AWS"

  depends_on = [google_project_service.this]
}

resource "google_iam_workload_identity_pool_provider" "this" {
  #checkov:skip=CKV_GCP_125:who is let in are two roles of AWS; nobody of GitHub is
  for_each = local.one

  project                            = var.project
  workload_identity_pool_id          = google_iam_workload_identity_pool.this["this"].workload_identity_pool_id
  workload_identity_pool_provider_id = "aws"
  description                        = "The roles of orchctl's functions that call clouds, and nobody else of the account"
  attribute_condition                = "attribute.aws_role in [${join(", ", [for name in sort(keys(local.sessions)) : "'${local.sessions[name]}'"])}]"

  attribute_mapping = {
    "google.subject"     = "assertion.arn"
    "attribute.aws_role" = "assertion.arn.contains('assumed-role') ? assertion.arn.extract('{account_arn}assumed-role/') + 'assumed-role/' + assertion.arn.extract('assumed-role/{role_name}/') : assertion.arn"
  }

  aws {
    account_id = var.aws.account_id
  }
}

# ----------------------------------------------------------------------------- who buys

resource "google_service_account" "controller" {
  for_each = local.one

  project      = var.project
  account_id   = "orchctl-${var.name}-buys"
  display_name = "orchctl ${var.name}: buys and ends machines"

  depends_on = [google_project_service.this]
}

resource "google_service_account_iam_member" "federated" {
  for_each = var.enabled ? local.sessions : {}

  service_account_id = google_service_account.controller["this"].name
  role               = "roles/iam.workloadIdentityUser"
  member             = "principalSet://iam.googleapis.com/${google_iam_workload_identity_pool.this["this"].name}/attribute.aws_role/${each.value}"
}

resource "google_project_iam_custom_role" "this" {
  for_each = local.one

  project     = var.project
  role_id     = "orchctl_${replace(var.name, "-", "_")}"
  title       = "orchctl ${var.name}"
  description = "Buys, finds and ends machines"
  permissions = jsondecode(file("${path.module}/permissions.json"))
}

resource "google_project_iam_member" "this" {
  for_each = local.one

  project = var.project
  role    = google_project_iam_custom_role.this["this"].name
  member  = "serviceAccount:${google_service_account.controller["this"].email}"
}

# ----------------------------------------------------------------------------- what it buys

# Machines prove who they are by it; it may do nothing.
resource "google_service_account" "machine" {
  for_each = { for key, yes in local.one : key => yes if var.machines.service_account == "" }

  project      = var.project
  account_id   = "orchctl-${var.name}-is"
  display_name = "orchctl ${var.name}: machines; may do nothing"

  depends_on = [google_project_service.this]
}

resource "google_service_account_iam_member" "lent" {
  for_each = local.one

  service_account_id = "projects/${var.project}/serviceAccounts/${local.machine_account}"
  role               = "roles/iam.serviceAccountUser"
  member             = "serviceAccount:${google_service_account.controller["this"].email}"
}
