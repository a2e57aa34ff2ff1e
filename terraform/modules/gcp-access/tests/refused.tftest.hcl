# What is refused, before anything is made: each variable of a run has one fault.

mock_provider "google" {}

variables {
  project = "acme-ml"
  aws     = { account_id = "123456789012", roles = { reconcile = "arn:aws:iam::123456789012:role/orchctl-prod-reconcile" } }
}

run "what_is_written_otherwise" {
  command = plan

  variables {
    name     = "a-name-too-long"
    project  = "123456"
    aws      = { account_id = "1234", roles = { reconcile = "arn:aws:iam::123456789012:role/r" } }
    machines = { service_account = "me@example.com" }
  }

  expect_failures = [var.name, var.project, var.aws, var.machines]
}

run "no_role" {
  command = plan

  variables {
    aws = { account_id = "123456789012", roles = {} }
  }

  expect_failures = [var.aws]
}

run "a_user" {
  command = plan

  variables {
    aws = { account_id = "123456789012", roles = { me = "arn:aws:iam::123456789012:user/me" } }
  }

  expect_failures = [var.aws]
}
