# Four functions of one zip, or of one image. Each has a role and a log of its own.

locals {
  functions = var.enabled ? {
    api          = { handler = "api", timeout = 29, retries = 0, says = "Answers people and agents" }
    reconcile    = { handler = "reconcile", timeout = 120, retries = 0, says = "Looks after machines" }
    interruption = { handler = "interruption", timeout = 60, retries = 2, says = "Hears of machines that AWS takes" }
    prices       = { handler = "prices", timeout = 300, retries = 0, says = "Asks what clouds sell today, and tidies up" }
  } : {}

  public_url = var.enabled ? coalesce(var.api.public_url, aws_apigatewayv2_api.this["this"].api_endpoint) : ""

  environment = var.enabled ? {
    ORCHCTL_TABLE                = aws_dynamodb_table.this["this"].name
    ORCHCTL_BUCKET               = aws_s3_bucket.this["this"].bucket
    ORCHCTL_PUBLIC_URL           = local.public_url
    ORCHCTL_INSTALLATION         = var.name
    ORCHCTL_ADMIN_TOKEN_SHA256   = var.access.admin_token_sha256
    ORCHCTL_NOTICES_TOKEN_SHA256 = var.access.notices_token_sha256
    ORCHCTL_RECONCILE_FUNCTION   = "${local.prefix}-reconcile"
  } : {}

  # Only for who calls the clouds; none of it is a secret.
  federation = merge(
    var.clouds.gcp == null ? {} : { ORCHCTL_GCP_CREDENTIALS = var.clouds.gcp.credentials },
    var.clouds.azure == null ? {} : {
      ORCHCTL_AZURE_TENANT = var.clouds.azure.tenant_id
      ORCHCTL_AZURE_CLIENT = var.clouds.azure.client_id
    },
  )
  callers = ["reconcile", "prices"]
  image   = var.package.image != ""
}

resource "aws_lambda_function" "this" {
  #checkov:skip=CKV_AWS_50:tracing costs more than all else of a deployment that has nothing to do; `functions.tracing` switches it on
  #checkov:skip=CKV_AWS_115:who acts holds a lease in the table, so a second one does no harm; concurrency kept back can not even be set in a new account
  #checkov:skip=CKV_AWS_116:a look that fails is made again by the schedule; what must not be lost, notices, has a dead letter queue
  #checkov:skip=CKV_AWS_117:calls public APIs only, in which a VPC would need a NAT gateway, the dearest part of all
  #checkov:skip=CKV_AWS_173:there is no secret in the environment, only hashes and names
  #checkov:skip=CKV_AWS_272:the zip is named by its version in a bucket, so nobody changes it unseen; signing needs a profile of the deployer's
  for_each = local.functions

  function_name     = "${local.prefix}-${each.key}"
  description       = each.value.says
  role              = aws_iam_role.this[each.key].arn
  package_type      = local.image ? "Image" : "Zip"
  handler           = local.image ? null : "control_plane.serverless.${each.value.handler}.handler"
  runtime           = local.image ? null : var.functions.runtime
  architectures     = [var.functions.architecture]
  memory_size       = var.functions.memory_mib
  timeout           = each.value.timeout
  image_uri         = local.image ? var.package.image : null
  s3_bucket         = local.image ? null : var.package.bucket
  s3_key            = local.image ? null : var.package.key
  s3_object_version = local.image ? null : var.package.version
  tags              = local.tags

  dynamic "image_config" {
    for_each = local.image ? [true] : []
    content {
      command = ["control_plane.serverless.${each.value.handler}.handler"]
    }
  }

  environment {
    variables = merge(local.environment, contains(local.callers, each.key) ? local.federation : {})
  }

  tracing_config {
    mode = var.functions.tracing ? "Active" : "PassThrough"
  }

  dynamic "dead_letter_config" {
    for_each = each.key == "interruption" ? [true] : []
    content {
      target_arn = aws_sqs_queue.dead_letters["this"].arn
    }
  }

  # A function without its log or its rights would begin to fail before they are there.
  depends_on = [aws_cloudwatch_log_group.function, aws_iam_role_policy.this]
}

resource "aws_lambda_function_event_invoke_config" "this" {
  for_each = { for name, each in local.functions : name => each if name != "api" }

  function_name                = aws_lambda_function.this[each.key].function_name
  maximum_retry_attempts       = each.value.retries
  maximum_event_age_in_seconds = each.key == "interruption" ? 300 : 60
}

resource "aws_cloudwatch_log_group" "function" {
  #checkov:skip=CKV_AWS_158:encrypted by CloudWatch's own key; there is no secret in a log
  #checkov:skip=CKV_AWS_338:how long they are kept is for the deployer to say; who did what is kept in the table
  for_each = local.functions

  name              = "/aws/lambda/${local.prefix}-${each.key}"
  retention_in_days = var.retention.log_days
  tags              = local.tags
}
