# Nine, since CloudWatch takes money for each beyond ten in an account.

locals {
  watched = {
    waiting = {
      says       = "A job has waited for more than ${var.alarms.oldest_waiting_minutes} minutes. `orchctl autoscaler explain QUEUE` says why."
      namespace  = "orchctl"
      metric     = "OldestWaitingSeconds"
      dimensions = { service = "${local.prefix}-reconcile" }
      statistic  = "Maximum"
      above      = var.alarms.oldest_waiting_minutes * 60
      minutes    = 5
      missing    = "notBreaching"
    }
    stale = {
      says       = "Nobody has looked after machines for ${var.alarms.stale_minutes} minutes. They end by themselves; nothing new is bought."
      namespace  = "AWS/Lambda"
      metric     = "Invocations"
      dimensions = { FunctionName = "${local.prefix}-reconcile" }
      statistic  = "Sum"
      below      = 1
      minutes    = var.alarms.stale_minutes
      missing    = "breaching"
    }
    failing = {
      says       = "What the loop decides can not be carried out. `orchctl events` says what was answered."
      namespace  = "orchctl"
      metric     = "Errors"
      dimensions = { service = "${local.prefix}-reconcile" }
      statistic  = "Sum"
      above      = 10
      minutes    = 15
      missing    = "notBreaching"
    }
    crashing = {
      says       = "The loop crashes; its log, /aws/lambda/${local.prefix}-reconcile, says why."
      namespace  = "AWS/Lambda"
      metric     = "Errors"
      dimensions = { FunctionName = "${local.prefix}-reconcile" }
      statistic  = "Sum"
      above      = 2
      minutes    = 5
      missing    = "notBreaching"
    }
    table-throttles = {
      says       = "The table throttles writes: too much for one partition, or for the account."
      namespace  = "AWS/DynamoDB"
      metric     = "WriteThrottleEvents"
      dimensions = { TableName = local.prefix }
      statistic  = "Sum"
      above      = 10
      minutes    = 5
      missing    = "notBreaching"
    }
    dead-letters = {
      says       = "Notices of machines that AWS takes could not be acted on; they are in the queue ${local.prefix}-dead-letters."
      namespace  = "AWS/SQS"
      metric     = "ApproximateNumberOfMessagesVisible"
      dimensions = { QueueName = "${local.prefix}-dead-letters" }
      statistic  = "Maximum"
      above      = 0
      minutes    = 5
      missing    = "notBreaching"
    }
    broken = {
      says       = "The API answers with errors of its own (5xx)."
      namespace  = "AWS/ApiGateway"
      metric     = "5xx"
      dimensions = { ApiId = one(values(aws_apigatewayv2_api.this)[*].id) }
      statistic  = "Sum"
      above      = 5
      minutes    = 5
      missing    = "notBreaching"
    }
    api-throttles = {
      says       = "AWS does not start the function api as often as it is asked to: the account's concurrency is used up."
      namespace  = "AWS/Lambda"
      metric     = "Throttles"
      dimensions = { FunctionName = "${local.prefix}-api" }
      statistic  = "Sum"
      above      = 0
      minutes    = 5
      missing    = "notBreaching"
    }
    reconcile-throttles = {
      says       = "AWS does not start the function reconcile as often as it is asked to: the account's concurrency is used up."
      namespace  = "AWS/Lambda"
      metric     = "Throttles"
      dimensions = { FunctionName = "${local.prefix}-reconcile" }
      statistic  = "Sum"
      above      = 0
      minutes    = 15
      missing    = "notBreaching"
    }
  }
}

resource "aws_cloudwatch_metric_alarm" "this" {
  for_each = { for name, alarm in local.watched : name => alarm if var.enabled && var.alarms.enabled }

  alarm_name          = "${local.prefix}-${each.key}"
  alarm_description   = each.value.says
  namespace           = each.value.namespace
  metric_name         = each.value.metric
  dimensions          = each.value.dimensions
  statistic           = each.value.statistic
  comparison_operator = can(each.value.below) ? "LessThanThreshold" : "GreaterThanThreshold"
  threshold           = try(each.value.below, each.value.above)
  period              = each.value.minutes * 60
  evaluation_periods  = 1
  treat_missing_data  = each.value.missing
  alarm_actions       = var.alarms.topics
  ok_actions          = var.alarms.topics
  tags                = local.tags
}
