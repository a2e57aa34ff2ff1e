output "api" {
  description = "Where people and machines reach the API: `url` is for `orchctl context add`, `endpoint` what a domain of your own points to."
  value = var.enabled ? {
    url         = local.public_url
    endpoint    = aws_apigatewayv2_api.this["this"].api_endpoint
    id          = aws_apigatewayv2_api.this["this"].id
    request_log = aws_cloudwatch_log_group.requests["this"].name
  } : null
}

output "functions" {
  description = "By name: `api`, `reconcile`, `interruption`, `prices`."
  value = {
    for name in keys(local.functions) : name => {
      name     = aws_lambda_function.this[name].function_name
      arn      = aws_lambda_function.this[name].arn
      log      = aws_cloudwatch_log_group.function[name].name
      role     = aws_iam_role.this[name].name
      role_arn = aws_iam_role.this[name].arn
    }
  }
}

output "clouds" {
  description = "What the modules `gcp-access` and `azure-access` are told: the account, and the roles that call clouds. Made of names alone, so that both can stand before this module."
  value = var.enabled ? {
    account_id = local.account
    roles      = { for name in local.callers : name => "arn:${local.partition}:iam::${local.account}:role${var.iam.path}${local.prefix}-${name}" }
  } : null
}

output "table" {
  description = "Queues, jobs, machines and ledger."
  value = var.enabled ? {
    name = aws_dynamodb_table.this["this"].name
    arn  = aws_dynamodb_table.this["this"].arn
  } : null
}

output "bucket" {
  description = "Logs, sources and artifacts of jobs."
  value = var.enabled ? {
    name = aws_s3_bucket.this["this"].bucket
    arn  = aws_s3_bucket.this["this"].arn
  } : null
}

output "machines" {
  description = "For `instance_profile`, `role` and `life_limit_role` of a document's `aws`: by the first two machines prove who they are, by the last a schedule ends them at their deadline."
  value = var.enabled ? {
    instance_profile = aws_iam_instance_profile.machine["this"].name
    role             = aws_iam_role.machine["this"].name
    life_limit_role  = aws_iam_role.this["life_limit"].arn
  } : null
}

output "dead_letters" {
  description = "Notices of machines that AWS takes that nobody could act on."
  value = var.enabled ? {
    name = aws_sqs_queue.dead_letters["this"].name
    arn  = aws_sqs_queue.dead_letters["this"].arn
    url  = aws_sqs_queue.dead_letters["this"].url
  } : null
}

output "alarms" {
  description = "ARNs, by name."
  value       = { for name, alarm in aws_cloudwatch_metric_alarm.this : name => alarm.arn }
}
