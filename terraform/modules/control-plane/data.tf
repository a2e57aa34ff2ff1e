# What outlives every deployment: queues, jobs, machines and ledger in the table; logs, sources and
# artifacts in the bucket.

resource "aws_dynamodb_table" "this" {
  #checkov:skip=CKV_AWS_28:on unless `retention.point_in_time_recovery` is false, which checkov does not work out
  #checkov:skip=CKV_AWS_119:encrypted by AWS's own key; a customer's key costs more a month than the whole control plane when idle
  for_each = local.one

  name                        = local.prefix
  billing_mode                = "PAY_PER_REQUEST"
  hash_key                    = "pk"
  range_key                   = "sk"
  deletion_protection_enabled = var.retention.deletion_protection
  tags                        = local.tags

  dynamic "attribute" {
    for_each = toset(["pk", "sk", "gp", "gs"])
    content {
      name = attribute.value
      type = "S"
    }
  }

  global_secondary_index {
    name               = "ready"
    hash_key           = "gp"
    range_key          = "gs"
    projection_type    = "INCLUDE"
    non_key_attributes = ["ep", "nb", "o", "pa", "qa", "rn"]
  }

  ttl {
    attribute_name = "ttl"
    enabled        = true
  }

  point_in_time_recovery {
    enabled = var.retention.point_in_time_recovery
  }

  server_side_encryption {
    enabled = true
  }
}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:every request for an object is one of the API, which keeps an audit log of its own
  #checkov:skip=CKV_AWS_144:logs and artifacts of jobs are not worth a second region; whoever thinks so replicates the bucket from outside
  #checkov:skip=CKV_AWS_145:encrypted by S3's own key; a customer's key costs more a month than the whole control plane when idle
  #checkov:skip=CKV2_AWS_62:nobody waits for an object; the API is told when a job has written one
  for_each = local.one

  bucket        = "${local.prefix}-${local.account}-${local.region}"
  force_destroy = !var.retention.deletion_protection
  tags          = local.tags
}

resource "aws_s3_bucket_versioning" "this" {
  for_each = local.one

  bucket = aws_s3_bucket.this["this"].id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_server_side_encryption_configuration" "this" {
  for_each = local.one

  bucket = aws_s3_bucket.this["this"].id

  rule {
    apply_server_side_encryption_by_default {
      sse_algorithm = "AES256"
    }
  }
}

resource "aws_s3_bucket_ownership_controls" "this" {
  for_each = local.one

  bucket = aws_s3_bucket.this["this"].id

  rule {
    object_ownership = "BucketOwnerEnforced"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  for_each = local.one

  bucket                  = aws_s3_bucket.this["this"].id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  for_each = local.one

  bucket     = aws_s3_bucket.this["this"].id
  depends_on = [aws_s3_bucket_versioning.this]

  dynamic "rule" {
    for_each = toset(["jobs", "sources"])
    content {
      id     = "forget-${rule.value}"
      status = "Enabled"

      filter {
        prefix = "${rule.value}/"
      }

      expiration {
        days = var.retention.job_days
      }
    }
  }

  rule {
    id     = "tidy"
    status = "Enabled"

    filter {
      prefix = ""
    }

    noncurrent_version_expiration {
      noncurrent_days = 7
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

resource "aws_s3_bucket_policy" "this" {
  for_each = local.one

  bucket = aws_s3_bucket_public_access_block.this["this"].bucket

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "EncryptedOnly"
      Effect    = "Deny"
      Principal = "*"
      Action    = "s3:*"
      Resource  = [aws_s3_bucket.this["this"].arn, "${aws_s3_bucket.this["this"].arn}/*"]
      Condition = { Bool = { "aws:SecureTransport" = "false" } }
    }]
  })
}

resource "aws_sqs_queue" "dead_letters" {
  for_each = local.one

  name                      = "${local.prefix}-dead-letters"
  message_retention_seconds = var.retention.dead_letter_days * 86400
  sqs_managed_sse_enabled   = true
  tags                      = local.tags
}

resource "aws_sqs_queue_policy" "dead_letters" {
  for_each = local.one

  queue_url = aws_sqs_queue.dead_letters["this"].url

  policy = jsonencode({
    Version = "2012-10-17"
    Statement = [{
      Sid       = "EventsOfThisRule"
      Effect    = "Allow"
      Principal = { Service = "events.amazonaws.com" }
      Action    = "sqs:SendMessage"
      Resource  = aws_sqs_queue.dead_letters["this"].arn
      Condition = { ArnEquals = { "aws:SourceArn" = aws_cloudwatch_event_rule.this["interruption"].arn } }
    }]
  })
}
