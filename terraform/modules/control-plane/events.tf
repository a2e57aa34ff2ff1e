# What starts functions beside requests: the clock, and machines that AWS takes. A rule costs nothing;
# EventBridge Scheduler would be a third of all that is spent for nothing.

locals {
  rules = var.enabled ? {
    reconcile = { schedule = var.schedule.look, pattern = null, retries = 0, says = "When the loop looks by itself" }
    prices    = { schedule = var.schedule.prices, pattern = null, retries = 0, says = "When clouds are asked for prices" }
    interruption = {
      schedule = null
      pattern = jsonencode({
        source = ["aws.ec2"]
        detail-type = [
          "EC2 Spot Instance Interruption Warning",
          "EC2 Instance Rebalance Recommendation",
          "EC2 Instance State-change Notification",
        ]
      })
      retries = 10
      says    = "Machines that AWS takes, and what becomes of them"
    }
  } : {}
}

resource "aws_cloudwatch_event_rule" "this" {
  for_each = local.rules

  name                = "${local.prefix}-${each.key}"
  description         = each.value.says
  schedule_expression = each.value.schedule
  event_pattern       = each.value.pattern
  tags                = local.tags
}

resource "aws_cloudwatch_event_target" "this" {
  for_each = local.rules

  rule      = aws_cloudwatch_event_rule.this[each.key].name
  target_id = each.key
  arn       = aws_lambda_function.this[each.key].arn

  retry_policy {
    maximum_event_age_in_seconds = each.key == "interruption" ? 300 : 60
    maximum_retry_attempts       = each.value.retries
  }

  # A tick that is lost is made up for by the next one.
  dynamic "dead_letter_config" {
    for_each = each.key == "interruption" ? [true] : []
    content {
      arn = aws_sqs_queue.dead_letters["this"].arn
    }
  }
}

resource "aws_lambda_permission" "rule" {
  for_each = local.rules

  statement_id  = "rule"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this[each.key].function_name
  principal     = "events.amazonaws.com"
  source_arn    = aws_cloudwatch_event_rule.this[each.key].arn
}
