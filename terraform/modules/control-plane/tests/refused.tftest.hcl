# What is refused, before anything is made: each variable of a run has one fault.

mock_provider "aws" {}

variables {
  package = { bucket = "artifacts", key = "orchctl-lambda.zip", version = "v1" }
  access  = { admin_token_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }
}

run "what_is_written_otherwise" {
  command = plan

  variables {
    name      = "Prod_1"
    package   = { bucket = "b", key = "k", version = "" }
    access    = { admin_token_sha256 = "the token itself" }
    functions = { architecture = "arm" }
    api       = { public_url = "http://orchctl.example.com" }
    schedule  = { look = "1 minute" }
    retention = { log_days = 31 }
    alarms    = { topics = ["somebody@example.com"] }
    iam       = { path = "apps" }
    clouds    = { gcp = { credentials = "{\"type\": \"service_account\"}" } }
  }

  expect_failures = [var.name, var.package, var.access, var.functions, var.api, var.schedule, var.retention, var.alarms, var.iam, var.clouds]
}

run "what_is_too_much_or_too_little" {
  command = plan

  variables {
    name      = "a-name-that-is-much-too-long"
    access    = { admin_token_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08", notices_token_sha256 = "the token itself" }
    functions = { memory_mib = 128 }
    api       = { public_url = "https://example.com/orchctl" }
    retention = { job_days = 0 }
    alarms    = { stale_minutes = 1 }
    iam       = { permissions_boundary = "boundary" }
    clouds    = { gcp = { credentials = "a key" } }
  }

  expect_failures = [var.name, var.access, var.functions, var.api, var.retention, var.alarms, var.iam, var.clouds]
}

run "what_the_zip_or_aws_does_not_know" {
  command = plan

  variables {
    access    = { admin_token_sha256 = upper("9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08") }
    functions = { runtime = "python3.9" }
    retention = { dead_letter_days = 15 }
  }

  expect_failures = [var.access, var.functions, var.retention]
}

run "an_image_that_may_be_another_tomorrow" {
  command = plan

  variables {
    package = { image = "repository/orchctl:latest" }
  }

  expect_failures = [var.package]
}

run "a_zip_and_an_image" {
  command = plan

  variables {
    package = { bucket = "b", key = "k", version = "v", image = "orchctl@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }
  }

  expect_failures = [var.package]
}
