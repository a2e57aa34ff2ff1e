variable "enabled" {
  description = "`false` makes nothing, and removes what there is, where deletion protection lets it."
  type        = bool
  default     = true
  nullable    = false
}

variable "name" {
  description = "What this control plane is called. Labels of its machines begin with `orchctl-NAME-`, names of its resources are `orchctl-NAME-…`: no two control planes of an account may have the same."
  type        = string
  default     = "prod"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z](-?[a-z0-9])*$", var.name)) && length(var.name) <= 24
    error_message = "`name` has 1 to 24 lower-case letters, digits and single hyphens, and begins with a letter: it becomes a part of the names of buckets, roles and labels."
  }
}

variable "package" {
  description = "What all functions run. Either the zip (`make lambda`), by its version in a bucket of the same region: another version is a change, another upload is not. Or the image (`make lambda-image`), by its digest in a repository of the same account and region."
  type = object({
    bucket  = optional(string, "")
    key     = optional(string, "")
    version = optional(string, "")
    image   = optional(string, "")
  })
  nullable = false

  validation {
    condition     = var.package.image != "" || alltrue([for each in [var.package.bucket, var.package.key, var.package.version] : length(each) > 0])
    error_message = "`package` needs `bucket`, `key` and `version`, or `image`. The version is the object's: the bucket must keep versions."
  }

  validation {
    condition     = var.package.image == "" || join("", [var.package.bucket, var.package.key, var.package.version]) == ""
    error_message = "`package` is a zip or an image: `image` stands alone."
  }

  validation {
    condition     = can(regex("^([^@]+@sha256:[0-9a-f]{64})?$", var.package.image))
    error_message = "`package.image` ends in the digest (REPOSITORY@sha256:…). What a tag names may be another image tomorrow, and no plan would show it."
  }
}

variable "access" {
  description = "Who may do everything, and who may send notices. Tokens are kept by whoever deploys; only their SHA-256 in lower-case hex comes here, and it opens nothing."
  type = object({
    admin_token_sha256   = string
    notices_token_sha256 = optional(string, "")
  })
  nullable = false

  validation {
    condition     = can(regex("^[0-9a-f]{64}$", var.access.admin_token_sha256))
    error_message = "`access.admin_token_sha256` is no SHA-256 in lower-case hex (64 digits). Make it with: printf %s \"$TOKEN\" | sha256sum. Never put the token itself here."
  }

  validation {
    condition     = can(regex("^([0-9a-f]{64})?$", var.access.notices_token_sha256))
    error_message = "`access.notices_token_sha256` is empty, or a SHA-256 in lower-case hex (64 digits)."
  }
}

variable "functions" {
  description = "How the functions run. `runtime` and `architecture` are those that the zip was built for; an image brings its runtime. `tracing` costs more than all else of a deployment that has nothing to do."
  type = object({
    runtime      = optional(string, "python3.12")
    architecture = optional(string, "x86_64")
    memory_mib   = optional(number, 1024)
    tracing      = optional(bool, false)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains(["x86_64", "arm64"], var.functions.architecture)
    error_message = "`functions.architecture` is x86_64 or arm64: the one that the zip was built for (make lambda ARGS=--arch=…)."
  }

  validation {
    condition     = can(regex("^python3\\.1[1-9]$", var.functions.runtime))
    error_message = "`functions.runtime` is python3.11 or newer: the one that the zip was built for."
  }

  validation {
    condition     = var.functions.memory_mib >= 512 && var.functions.memory_mib <= 10240
    error_message = "`functions.memory_mib` is 512 to 10240. With less, the functions that load the SDK of a cloud run out of memory."
  }
}

variable "api" {
  description = "How the API is reached. `public_url` where a domain of your own stands in front. A client that asks for more than `requests_per_second`, beyond a `burst`, is told to wait."
  type = object({
    public_url          = optional(string, "")
    requests_per_second = optional(number, 500)
    burst               = optional(number, 1000)
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(regex("^(https://[^/]+)?$", var.api.public_url))
    error_message = "`api.public_url` is empty, or begins with https:// and has no path: tokens travel to it."
  }
}

variable "schedule" {
  description = "How often the loop looks by itself, and how often prices are asked for, as EventBridge writes it. Changes wake the loop at once; this repairs what was not heard."
  type = object({
    look   = optional(string, "rate(1 minute)")
    prices = optional(string, "rate(5 minutes)")
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for each in values(var.schedule) : can(regex("^(rate|cron)\\(.+\\)$", each))])
    error_message = "`schedule.look` and `schedule.prices` are written as rate(1 minute) or cron(0/5 * * * ? *)."
  }
}

variable "retention" {
  description = "How long things are kept. `job_days` is of logs, sources and artifacts of jobs. With `deletion_protection` neither table nor bucket can be removed with what is in it."
  type = object({
    log_days               = optional(number, 30)
    job_days               = optional(number, 100)
    dead_letter_days       = optional(number, 14)
    point_in_time_recovery = optional(bool, true)
    deletion_protection    = optional(bool, true)
  })
  default  = {}
  nullable = false

  validation {
    condition     = contains([1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653], var.retention.log_days)
    error_message = "`retention.log_days` is one of those that CloudWatch Logs knows: 1, 3, 5, 7, 14, 30, 60, 90, 120, 150, 180, 365, 400, 545, 731, 1096, 1827, 2192, 2557, 2922, 3288, 3653."
  }

  validation {
    condition     = var.retention.job_days >= 1 && floor(var.retention.job_days) == var.retention.job_days
    error_message = "`retention.job_days` is a whole number of days, at least 1."
  }

  validation {
    condition     = var.retention.dead_letter_days >= 1 && var.retention.dead_letter_days <= 14
    error_message = "`retention.dead_letter_days` is 1 to 14: SQS keeps nothing longer."
  }
}

variable "alarms" {
  description = "What is worth waking somebody for, and whom: `topics` are ARNs of SNS topics. A job that waits longer than `oldest_waiting_minutes`; no look for `stale_minutes`; looks that fail; notices that nobody could act on; calls that AWS throttles."
  type = object({
    enabled                = optional(bool, true)
    topics                 = optional(list(string), [])
    oldest_waiting_minutes = optional(number, 60)
    stale_minutes          = optional(number, 10)
  })
  default  = {}
  nullable = false

  validation {
    condition     = alltrue([for each in var.alarms.topics : can(regex("^arn:[^:]+:sns:", each))])
    error_message = "`alarms.topics` are ARNs of SNS topics (arn:aws:sns:REGION:ACCOUNT:NAME)."
  }

  validation {
    condition     = var.alarms.oldest_waiting_minutes >= 1 && var.alarms.stale_minutes >= 5
    error_message = "`alarms.oldest_waiting_minutes` is at least 1, `alarms.stale_minutes` at least 5: the loop looks once a minute, and one look may be slow."
  }
}

variable "iam" {
  description = "Where roles are made: their path, and the boundary that no role of an account may be without."
  type = object({
    path                 = optional(string, "/")
    permissions_boundary = optional(string)
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(regex("^/(.*/)?$", var.iam.path))
    error_message = "`iam.path` begins and ends with a slash."
  }

  validation {
    condition     = var.iam.permissions_boundary == null || can(regex("^arn:[^:]+:iam::[0-9]*:policy/", var.iam.permissions_boundary))
    error_message = "`iam.permissions_boundary` is the ARN of a policy (arn:aws:iam::ACCOUNT:policy/NAME)."
  }
}

variable "clouds" {
  description = "The other clouds that machines are bought in, as the modules `gcp-access` and `azure-access` put out. There is no secret in it: functions prove there who they are by their role in AWS."
  type = object({
    gcp   = optional(object({ credentials = string }))
    azure = optional(object({ tenant_id = string, client_id = string }))
  })
  default  = {}
  nullable = false

  validation {
    condition     = var.clouds.gcp == null || try(jsondecode(var.clouds.gcp.credentials).type, "") == "external_account"
    error_message = "`clouds.gcp.credentials` is the output `credentials` of the module gcp-access, of the type external_account. A key of a service account is a secret and is not taken."
  }
}

variable "tags" {
  description = "Of everything that is made."
  type        = map(string)
  default     = {}
  nullable    = false
}
