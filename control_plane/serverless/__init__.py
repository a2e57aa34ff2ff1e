"""The control plane without a server: four AWS Lambda functions over DynamoDB and S3."""
