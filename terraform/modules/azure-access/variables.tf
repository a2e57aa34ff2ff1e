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
    condition     = can(regex("^[a-z](-?[a-z0-9])*$", var.name)) && length(var.name) <= 24
    error_message = "`name` has 1 to 24 lower-case letters, digits and single hyphens, and begins with a letter."
  }
}

variable "subscription_id" {
  description = "The subscription that machines are bought in."
  type        = string
  nullable    = false

  validation {
    condition     = can(regex("^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$", var.subscription_id))
    error_message = "`subscription_id` is the id of a subscription in lower case (az account show --query id)."
  }
}

variable "aws" {
  description = "Who may act here: the roles of the output `clouds` of the module `control-plane`, and the `issuer` by which the AWS account vouches for them (the resource `aws_iam_outbound_web_identity_federation`)."
  type = object({
    issuer = string
    roles  = object({ reconcile = string, prices = string })
  })
  nullable = false

  validation {
    condition     = startswith(var.aws.issuer, "https://")
    error_message = "`aws.issuer` is the address that the account's outbound identity federation has (https://….tokens.sts.global.api.aws)."
  }

  validation {
    condition     = alltrue([for arn in values(var.aws.roles) : can(regex("^arn:[^:]+:iam::[0-9]{12}:role/.+$", arn))])
    error_message = "`aws.roles` are ARNs of roles (arn:aws:iam::ACCOUNT:role/NAME)."
  }
}

variable "resource_group" {
  description = "The group that machines are in, and nothing else: the controller may remove everything in it. A group that exists is named with `create = false`, and `location` is that of the identity then."
  type = object({
    name     = optional(string, "orchctl")
    location = string
    create   = optional(bool, true)
  })
  nullable = false

  validation {
    condition     = can(regex("^[A-Za-z0-9_().-]{0,89}[A-Za-z0-9_()-]$", var.resource_group.name))
    error_message = "`resource_group.name` has 1 to 90 letters, digits, and characters of _().-, and does not end with a dot."
  }
}

variable "networks" {
  description = "Ids of the resource groups, networks or security groups outside of the group that machines join, in the same subscription."
  type        = list(string)
  default     = []
  nullable    = false

  validation {
    condition     = alltrue([for each in var.networks : startswith(lower(each), "/subscriptions/${var.subscription_id}/")])
    error_message = "`networks` are resource ids in the subscription of `subscription_id` (/subscriptions/…/resourceGroups/…)."
  }
}

variable "tags" {
  description = "Of everything that is made."
  type        = map(string)
  default     = {}
  nullable    = false
}
