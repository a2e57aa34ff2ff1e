# One HTTP API, all of whose routes are the function's.

resource "aws_apigatewayv2_api" "this" {
  for_each = local.one

  name          = local.prefix
  description   = "orchctl"
  protocol_type = "HTTP"
  tags          = local.tags
}

resource "aws_apigatewayv2_integration" "this" {
  for_each = local.one

  api_id                 = aws_apigatewayv2_api.this["this"].id
  integration_type       = "AWS_PROXY"
  integration_uri        = aws_lambda_function.this["api"].arn
  payload_format_version = "2.0"
  timeout_milliseconds   = 30000
}

resource "aws_apigatewayv2_route" "this" {
  #checkov:skip=CKV_AWS_309:the function itself says who may do what: people, agents of machines and clouds prove themselves in different ways
  for_each = local.one

  api_id    = aws_apigatewayv2_api.this["this"].id
  route_key = "$default"
  target    = "integrations/${aws_apigatewayv2_integration.this["this"].id}"
}

resource "aws_apigatewayv2_stage" "this" {
  for_each = local.one

  api_id      = aws_apigatewayv2_api.this["this"].id
  name        = "$default"
  auto_deploy = true
  tags        = local.tags

  default_route_settings {
    throttling_rate_limit  = var.api.requests_per_second
    throttling_burst_limit = var.api.burst
  }

  access_log_settings {
    destination_arn = aws_cloudwatch_log_group.requests["this"].arn
    format = jsonencode({
      id      = "$context.requestId"
      at      = "$context.requestTime"
      from    = "$context.identity.sourceIp"
      method  = "$context.httpMethod"
      path    = "$context.path"
      status  = "$context.status"
      took_ms = "$context.responseLatency"
      error   = "$context.integrationErrorMessage"
    })
  }
}

resource "aws_cloudwatch_log_group" "requests" {
  #checkov:skip=CKV_AWS_158:encrypted by CloudWatch's own key; there is no secret in a log
  #checkov:skip=CKV_AWS_338:how long they are kept is for the deployer to say; who did what is kept in the table
  for_each = local.one

  name              = "/aws/apigateway/${local.prefix}"
  retention_in_days = var.retention.log_days
  tags              = local.tags
}

resource "aws_lambda_permission" "api" {
  for_each = local.one

  statement_id  = "api"
  action        = "lambda:InvokeFunction"
  function_name = aws_lambda_function.this["api"].function_name
  principal     = "apigateway.amazonaws.com"
  source_arn    = "${aws_apigatewayv2_api.this["this"].execution_arn}/*"
}
