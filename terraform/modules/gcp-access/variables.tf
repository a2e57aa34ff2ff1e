variable "enabled" {
  description = "`false` makes nothing, and removes what there is."
  type        = bool
  default     = true
  nullable    = false
}

variable "name" {
  description = "What the control plane is called, as in the module `control-plane`."
  type        = string
  default     = "prod"
  nullable    = false

  validation {
    condition     = can(regex("^[a-z](-?[a-z0-9])*$", var.name)) && length(var.name) <= 14
    error_message = "`name` has 1 to 14 lower-case letters, digits and single hyphens, and begins with a letter: it becomes a part of the names of service accounts, which are short."
  }
}

variable "project" {
  description = "The id of the project that machines are bought in. Its Compute Engine quota and its bill are what they use."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[a-z][a-z0-9-]{4,28}[a-z0-9]$", var.project))
    error_message = "`project` is the id of a project (such as acme-ml), neither its name nor its number."
  }
}

variable "aws" {
  description = "Who may act here: the output `clouds` of the module `control-plane`."
  type = object({
    account_id = string
    roles      = map(string)
  })
  nullable = false

  validation {
    condition     = can(regex("^[0-9]{12}$", var.aws.account_id))
    error_message = "`aws.account_id` has 12 digits."
  }

  validation {
    condition     = length(var.aws.roles) > 0 && alltrue([for arn in values(var.aws.roles) : can(regex("^arn:[^:]+:iam::[0-9]{12}:role/.+$", arn))])
    error_message = "`aws.roles` are ARNs of roles (arn:aws:iam::ACCOUNT:role/NAME), at least one."
  }
}

variable "machines" {
  description = "The service account that machines run as; it needs no right. Empty = one is made."
  type = object({
    service_account = optional(string, "")
  })
  default  = {}
  nullable = false

  validation {
    condition     = can(regex("^([^@]+@[^@]+\\.gserviceaccount\\.com)?$", var.machines.service_account))
    error_message = "`machines.service_account` is empty, or the e-mail address of a service account."
  }
}

variable "apis" {
  description = "Whether the APIs that this needs are switched on here. They stay on afterwards."
  type        = bool
  default     = true
  nullable    = false
}
