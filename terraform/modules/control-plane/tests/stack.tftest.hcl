# What is made, by plans. No account is needed: `terraform init && terraform test`.

mock_provider "aws" {
  override_during = plan

  mock_data "aws_caller_identity" {
    defaults = { account_id = "123456789012" }
  }
  mock_data "aws_partition" {
    defaults = { partition = "aws" }
  }
  mock_data "aws_region" {
    defaults = { region = "eu-central-1" }
  }
  mock_resource "aws_dynamodb_table" {
    defaults = { arn = "arn:aws:dynamodb:eu-central-1:123456789012:table/orchctl-prod" }
  }
  mock_resource "aws_s3_bucket" {
    defaults = { arn = "arn:aws:s3:::orchctl-prod-123456789012-eu-central-1", id = "orchctl-prod-123456789012-eu-central-1" }
  }
  mock_resource "aws_iam_role" {
    defaults = { arn = "arn:aws:iam::123456789012:role/orchctl-prod" }
  }
  mock_resource "aws_sqs_queue" {
    defaults = { arn = "arn:aws:sqs:eu-central-1:123456789012:orchctl-prod-dead-letters" }
  }
  mock_resource "aws_apigatewayv2_api" {
    defaults = { id = "a1b2c3", api_endpoint = "https://a1b2c3.execute-api.eu-central-1.amazonaws.com" }
  }
}

variables {
  package = { bucket = "artifacts", key = "orchctl-lambda.zip", version = "v1" }
  access  = { admin_token_sha256 = "9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }
}

run "all" {
  command = plan

  assert {
    condition     = join(" ", keys(aws_lambda_function.this)) == "api interruption prices reconcile"
    error_message = "Four functions are made."
  }
  assert {
    condition     = alltrue([for name, each in aws_lambda_function.this : each.handler == "control_plane.serverless.${name}.handler"])
    error_message = "Each runs its own handler."
  }
  assert {
    condition     = alltrue([for each in aws_lambda_function.this : each.s3_bucket == "artifacts" && each.s3_key == "orchctl-lambda.zip" && each.s3_object_version == "v1"])
    error_message = "All run one version of one zip."
  }
  assert {
    condition     = aws_lambda_function.this["api"].timeout < 30 && alltrue([for each in aws_apigatewayv2_integration.this : each.timeout_milliseconds == 30000])
    error_message = "The API answers before its gateway gives up."
  }
  assert {
    condition     = alltrue([for each in aws_lambda_function.this : each.environment[0].variables.ORCHCTL_PUBLIC_URL == "https://a1b2c3.execute-api.eu-central-1.amazonaws.com"])
    error_message = "Functions know where the API is reached."
  }
  assert {
    condition     = alltrue([for each in aws_lambda_function.this : each.environment[0].variables.ORCHCTL_RECONCILE_FUNCTION == aws_lambda_function.this["reconcile"].function_name])
    error_message = "The loop that is woken is the one that is made."
  }
  assert {
    condition     = alltrue([for name, each in aws_cloudwatch_log_group.function : each.retention_in_days == 30 && each.name == "/aws/lambda/${aws_lambda_function.this[name].function_name}"])
    error_message = "Each function has a log that is kept for a month."
  }
  assert {
    condition     = [for name, each in aws_lambda_function.this : name if length(each.dead_letter_config) > 0] == ["interruption"]
    error_message = "Notices that nobody could act on are kept."
  }
  assert {
    condition     = { for name, each in aws_lambda_function_event_invoke_config.this : name => each.maximum_retry_attempts } == { interruption = 2, prices = 0, reconcile = 0 }
    error_message = "A look is not repeated, the schedule makes the next one; a notice is."
  }

  assert {
    condition     = aws_dynamodb_table.this["this"].deletion_protection_enabled && aws_dynamodb_table.this["this"].point_in_time_recovery[0].enabled && one(aws_dynamodb_table.this["this"].ttl).attribute_name == "ttl"
    error_message = "The table is protected, can be set back, and forgets by itself."
  }
  assert {
    condition     = aws_dynamodb_table.this["this"].billing_mode == "PAY_PER_REQUEST"
    error_message = "An idle table costs nothing."
  }
  assert {
    condition     = !aws_s3_bucket.this["this"].force_destroy && aws_s3_bucket_public_access_block.this["this"].block_public_policy && aws_s3_bucket_public_access_block.this["this"].restrict_public_buckets
    error_message = "The bucket is not public and does not go with what is in it."
  }
  assert {
    condition     = aws_s3_bucket.this["this"].bucket == "orchctl-prod-123456789012-eu-central-1"
    error_message = "The bucket's name follows from what is known."
  }
  assert {
    condition     = { for each in aws_s3_bucket_lifecycle_configuration.this["this"].rule : each.id => each.expiration[0].days if length(each.expiration) > 0 } == { forget-jobs = 100, forget-sources = 100 }
    error_message = "What jobs leave is forgotten."
  }

  assert {
    condition     = aws_apigatewayv2_route.this["this"].route_key == "$default" && aws_apigatewayv2_stage.this["this"].name == "$default" && aws_apigatewayv2_integration.this["this"].payload_format_version == "2.0"
    error_message = "All routes are the function's, by payload 2.0."
  }
  assert {
    condition     = { for name, each in aws_cloudwatch_event_rule.this : name => each.schedule_expression if each.schedule_expression != null } == { prices = "rate(5 minutes)", reconcile = "rate(1 minute)" }
    error_message = "The loop looks once a minute, prices are asked for every five."
  }
  assert {
    condition     = length(jsondecode(aws_cloudwatch_event_rule.this["interruption"].event_pattern).detail-type) == 3
    error_message = "Warnings, recommendations and changes of state are heard."
  }
  assert {
    condition     = join(" ", keys(aws_cloudwatch_metric_alarm.this)) == "api-throttles broken crashing dead-letters failing reconcile-throttles stale table-throttles waiting"
    error_message = "Everything worth waking somebody for has an alarm."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["stale"].treat_missing_data == "breaching" && aws_cloudwatch_metric_alarm.this["stale"].comparison_operator == "LessThanThreshold"
    error_message = "Silence of the loop is an alarm."
  }
  assert {
    condition     = aws_cloudwatch_metric_alarm.this["waiting"].threshold == 3600 && aws_cloudwatch_metric_alarm.this["waiting"].dimensions.service == aws_lambda_function.this["reconcile"].function_name
    error_message = "A job that waits for an hour is an alarm of this deployment alone."
  }

  assert {
    condition     = alltrue([for name, each in aws_iam_role_policy.this : !strcontains(each.policy, "$${") && length(jsondecode(each.policy).Statement) > 0])
    error_message = "Every word of a policy is filled in."
  }
  assert {
    condition     = alltrue([for each in aws_iam_role_policy.this : !strcontains(each.policy, ":*\"\n      ],\n      \"Resource\"")])
    error_message = "No right is a wildcard."
  }
  assert {
    condition     = length(aws_iam_role_policy.azure) == 0 && !strcontains(jsonencode([for each in aws_lambda_function.this : each.environment[0].variables]), "AZURE")
    error_message = "Without other clouds nobody may prove who they are there."
  }
  assert {
    condition     = alltrue([for each in merge(aws_iam_role.this, aws_iam_role.machine) : each.permissions_boundary == null])
    error_message = "No boundary unless one is named."
  }
}

run "boundary_and_path" {
  command = plan

  variables {
    iam = { path = "/apps/", permissions_boundary = "arn:aws:iam::123456789012:policy/boundary" }
  }

  assert {
    condition     = alltrue([for each in concat(values(aws_iam_role.this), values(aws_iam_role.machine)) : each.permissions_boundary == "arn:aws:iam::123456789012:policy/boundary" && each.path == "/apps/"])
    error_message = "No role is without the boundary."
  }
  assert {
    condition     = output.clouds.roles.reconcile == "arn:aws:iam::123456789012:role/apps/orchctl-prod-reconcile"
    error_message = "What other clouds are told is the role that is made."
  }
}

run "other_clouds" {
  command = plan

  variables {
    clouds = {
      gcp   = { credentials = "{\"type\": \"external_account\"}" }
      azure = { tenant_id = "t", client_id = "c" }
    }
  }

  assert {
    condition     = [for name, each in aws_lambda_function.this : name if contains(keys(each.environment[0].variables), "ORCHCTL_GCP_CREDENTIALS") && contains(keys(each.environment[0].variables), "ORCHCTL_AZURE_CLIENT")] == ["prices", "reconcile"]
    error_message = "Only who calls clouds is told how."
  }
  assert {
    condition     = join(" ", keys(aws_iam_role_policy.azure)) == "prices reconcile"
    error_message = "Only who calls clouds may prove itself there."
  }
}

run "own_address" {
  command = plan

  variables {
    api = { public_url = "https://orchctl.example.com" }
  }

  assert {
    condition     = output.api.url == "https://orchctl.example.com" && aws_lambda_function.this["reconcile"].environment[0].variables.ORCHCTL_PUBLIC_URL == "https://orchctl.example.com"
    error_message = "Machines come to the address that is named."
  }
}

run "without_alarms" {
  command = plan

  variables {
    alarms = { enabled = false }
  }

  assert {
    condition     = length(aws_cloudwatch_metric_alarm.this) == 0
    error_message = "Alarms can be left out."
  }
}

run "nothing" {
  command = plan

  variables {
    enabled = false
  }

  assert {
    condition = length(flatten([
      values(aws_apigatewayv2_api.this), values(aws_apigatewayv2_integration.this), values(aws_apigatewayv2_route.this),
      values(aws_apigatewayv2_stage.this), values(aws_cloudwatch_event_rule.this), values(aws_cloudwatch_event_target.this),
      values(aws_cloudwatch_log_group.function), values(aws_cloudwatch_log_group.requests), values(aws_cloudwatch_metric_alarm.this),
      values(aws_dynamodb_table.this), values(aws_iam_instance_profile.machine), values(aws_iam_role.this),
      values(aws_iam_role.machine), values(aws_iam_role_policy.azure),
      values(aws_iam_role_policy.this), values(aws_lambda_function.this),
      values(aws_lambda_function_event_invoke_config.this), values(aws_lambda_permission.api), values(aws_lambda_permission.rule),
      values(aws_s3_bucket.this), values(aws_s3_bucket_lifecycle_configuration.this), values(aws_s3_bucket_ownership_controls.this),
      values(aws_s3_bucket_policy.this), values(aws_s3_bucket_public_access_block.this),
      values(aws_s3_bucket_server_side_encryption_configuration.this), values(aws_s3_bucket_versioning.this),
      values(aws_sqs_queue.dead_letters), values(aws_sqs_queue_policy.dead_letters),
    ])) == 0
    error_message = "`enabled = false` makes nothing."
  }
  assert {
    condition     = output.api == null && output.table == null && output.bucket == null && output.machines == null && output.dead_letters == null && output.clouds == null && length(output.functions) == 0 && length(output.alarms) == 0
    error_message = "What is not made is not put out."
  }
}

run "an_image" {
  command = plan

  variables {
    package = { image = "repository/orchctl@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08" }
  }

  assert {
    condition     = alltrue([for each in aws_lambda_function.this : each.package_type == "Image" && endswith(each.image_uri, "@sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08")])
    error_message = "All run one image."
  }
  assert {
    condition     = alltrue([for name, each in aws_lambda_function.this : each.image_config[0].command == tolist(["control_plane.serverless.${name}.handler"])])
    error_message = "Each runs its own handler."
  }
}
