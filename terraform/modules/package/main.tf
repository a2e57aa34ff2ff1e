/*
Puts the zip of all functions into a bucket that keeps its versions, for `package` of the module
`control-plane`. Whoever has such a bucket, or uploads in CI, does not need it.
*/

variable "name" {
  description = "What the bucket is called: `NAME-ACCOUNT-REGION`."
  type        = string
  default     = "orchctl-package"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z](-?[a-z0-9])*$", var.name)) && length(var.name) <= 32
    error_message = "`name` has 1 to 32 lower-case letters, digits and single hyphens, and begins with a letter."
  }
}

variable "zip" {
  description = "The file that `make lambda` made, on the computer that runs Terraform."
  type        = string
  nullable    = false

  validation {
    condition     = fileexists(var.zip)
    error_message = "There is no such file. Make it with: make lambda"
  }
}

variable "tags" {
  description = "Of everything that is made."
  type        = map(string)
  default     = {}
  nullable    = false
}

data "aws_caller_identity" "this" {}
data "aws_region" "this" {}

resource "aws_s3_bucket" "this" {
  #checkov:skip=CKV_AWS_18:read by AWS Lambda alone, at a deployment
  #checkov:skip=CKV_AWS_144:made again from the sources by one command
  #checkov:skip=CKV_AWS_145:encrypted by S3's own key; what is in it is public
  #checkov:skip=CKV2_AWS_62:nobody waits for an object
  bucket        = "${var.name}-${data.aws_caller_identity.this.account_id}-${data.aws_region.this.region}"
  force_destroy = true
  tags          = var.tags
}

resource "aws_s3_bucket_versioning" "this" {
  bucket = aws_s3_bucket.this.id

  versioning_configuration {
    status = "Enabled"
  }
}

resource "aws_s3_bucket_public_access_block" "this" {
  bucket                  = aws_s3_bucket.this.id
  block_public_acls       = true
  block_public_policy     = true
  ignore_public_acls      = true
  restrict_public_buckets = true
}

resource "aws_s3_bucket_lifecycle_configuration" "this" {
  bucket     = aws_s3_bucket.this.id
  depends_on = [aws_s3_bucket_versioning.this]

  rule {
    id     = "tidy"
    status = "Enabled"

    filter {
      prefix = ""
    }

    noncurrent_version_expiration {
      noncurrent_days = 90
    }

    abort_incomplete_multipart_upload {
      days_after_initiation = 1
    }
  }
}

# Not by its ETag, which is no hash of a large object: a plan would never be empty.
resource "aws_s3_object" "this" {
  #checkov:skip=CKV_AWS_186:encrypted by S3's own key; what is in it is public
  bucket      = aws_s3_bucket_versioning.this.bucket
  key         = "orchctl-lambda.zip"
  source      = var.zip
  source_hash = filesha256(var.zip)
  tags        = var.tags
}

output "package" {
  description = "For `package` of the module `control-plane`."
  value = {
    bucket  = aws_s3_object.this.bucket
    key     = aws_s3_object.this.key
    version = aws_s3_object.this.version_id
  }
}
