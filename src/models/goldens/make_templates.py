"""Makes the golden files of chat templates in the folder `templates` beside this script.

`chats.json`: templates built from the constructs of the published ones, family by family, in words of our own, with
conversations and what `apply_chat_template` of Hugging Face transformers makes of them. `constructs.json`: pieces of
Jinja one by one, with what the environment of transformers makes of them, or that it refuses them.

    python make_templates.py

Made with Python 3.11, transformers 5.17.0, jinja2 3.1.6, tokenizers 0.23.3.
"""

import json
import pathlib

from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast
from transformers.utils.chat_template_utils import render_jinja_template

HERE = pathlib.Path(__file__).resolve().parent / "templates"

# Qwen2-VL, Qwen2.5-VL: a default system turn, counted pictures between marks, names for pictures that nobody asks for.
QWEN2_VL = (
    "{% set pictures = namespace(value=0) %}{% set films = namespace(value=0) %}{% for message in messages %}"
    "{% if loop.first and message['role'] != 'system' %}<|begin|>system\nYou look at pictures.<|end|>\n{% endif %}"
    "<|begin|>{{ message['role'] }}\n{% if message['content'] is string %}{{ message['content'] }}<|end|>\n"
    "{% else %}{% for content in message['content'] %}{% if content['type'] == 'image' or 'image' in content or "
    "'image_url' in content %}{% set pictures.value = pictures.value + 1 %}{% if add_vision_id %}Picture "
    "{{ pictures.value }}: {% endif %}<|seen|><|pad|><|unseen|>{% elif content['type'] == 'video' or 'video' in "
    "content %}{% set films.value = films.value + 1 %}<|film|>{% elif 'text' in content %}{{ content['text'] }}"
    "{% endif %}{% endfor %}<|end|>\n{% endif %}{% endfor %}{% if add_generation_prompt %}<|begin|>assistant\n{% endif %}"
)
# Qwen3-VL: the same, over many lines, with tools and a macro.
QWEN3_VL = """\
{%- set pictures = namespace(value=0) %}
{%- macro show(content, count=true) %}
    {%- if content is string %}
        {{- content }}
    {%- else %}
        {%- for item in content %}
            {%- if 'image' in item or 'image_url' in item or item.type == 'image' %}
                {%- if count %}
                    {%- set pictures.value = pictures.value + 1 %}
                {%- endif %}
                {%- if add_vision_id is defined and add_vision_id -%} Picture {{ pictures.value }}: {% endif -%}
                <|seen|><|pad|><|unseen|>
            {%- elif 'text' in item %}
                {{- item.text }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endmacro %}
{%- if tools %}
    {{- '<|begin|>system\\n# Tools' }}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- '<|end|>\\n' }}
{%- else %}
    {%- if messages[0].role == 'system' %}
        {{- '<|begin|>system\\n' + show(messages[0].content, false) + '<|end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- set content = show(message.content) | trim %}
    {%- if message.role == 'user' or message.role == 'assistant' and not message.tool_calls %}
        {{- '<|begin|>' + message.role + '\\n' + content + '<|end|>' + '\\n' }}
    {%- elif message.role == "tool" %}
        {%- if loop.first or (messages[loop.index0 - 1].role != "tool") %}
            {{- '<|begin|>user' }}
        {%- endif %}
        {{- '\\n' + content }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|begin|>assistant\\n' }}
{%- endif %}
"""
# Qwen2.5: tools or not, a default system turn, calls of tools.
QWEN25 = """\
{%- if tools %}
    {{- '<|begin|>system\\n' }}
    {%- if messages[0]['role'] == 'system' %}
        {{- messages[0]['content'] }}
    {%- else %}
        {{- 'You help.' }}
    {%- endif %}
    {%- for tool in tools %}
        {{- "\\n" }}
        {{- tool | tojson }}
    {%- endfor %}
    {{- "\\n{\\"name\\": <name>}<|end|>\\n" }}
{%- else %}
    {%- if messages[0]['role'] == 'system' %}
        {{- '<|begin|>system\\n' + messages[0]['content'] + '<|end|>\\n' }}
    {%- else %}
        {{- '<|begin|>system\\nYou help.<|end|>\\n' }}
    {%- endif %}
{%- endif %}
{%- for message in messages %}
    {%- if (message.role == "user") or (message.role == "system" and not loop.first) or (message.role == "assistant" and not message.tool_calls) %}
        {{- '<|begin|>' + message.role + '\\n' + message.content + '<|end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {{- '<|begin|>' + message.role }}
        {%- for call in message.tool_calls %}
            {%- if call.function is defined %}
                {%- set call = call.function %}
            {%- endif %}
            {{- '\\n{"name": "' }}
            {{- call.name }}
            {{- '", "arguments": ' }}
            {{- call.arguments | tojson }}
            {{- '}' }}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|begin|>assistant\\n' }}
{%- endif %}
"""
# Qwen3: the last question is looked for from behind, thoughts are cut out of earlier answers, thinking can be turned
# off.
QWEN3 = """\
{%- if messages[0].role == 'system' %}
    {{- '<|begin|>system\\n' + messages[0].content + '<|end|>\\n' }}
{%- endif %}
{%- set ns = namespace(steps=true, last=messages|length - 1) %}
{%- for message in messages[::-1] %}
    {%- set index = (messages|length - 1) - loop.index0 %}
    {%- if ns.steps and message.role == "user" and message.content is string and not(message.content.startswith('<answer>') and message.content.endswith('</answer>')) %}
        {%- set ns.steps = false %}
        {%- set ns.last = index %}
    {%- endif %}
{%- endfor %}
{%- for message in messages %}
    {%- if message.content is string %}
        {%- set content = message.content %}
    {%- else %}
        {%- set content = '' %}
    {%- endif %}
    {%- if message.role == "user" or (message.role == "system" and not loop.first) %}
        {{- '<|begin|>' + message.role + '\\n' + content + '<|end|>' + '\\n' }}
    {%- elif message.role == "assistant" %}
        {%- set thought = '' %}
        {%- if message.reasoning_content is string %}
            {%- set thought = message.reasoning_content %}
        {%- else %}
            {%- if '</think>' in content %}
                {%- set thought = content.split('</think>')[0].rstrip('\\n').split('<think>')[-1].lstrip('\\n') %}
                {%- set content = content.split('</think>')[-1].lstrip('\\n') %}
            {%- endif %}
        {%- endif %}
        {%- if loop.index0 > ns.last and (loop.last or (not loop.last and thought)) %}
            {{- '<|begin|>' + message.role + '\\n<think>\\n' + thought.strip('\\n') + '\\n</think>\\n\\n' + content.lstrip('\\n') }}
        {%- else %}
            {{- '<|begin|>' + message.role + '\\n' + content }}
        {%- endif %}
        {{- '<|end|>\\n' }}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|begin|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}
"""
# Llama 3.1, 3.2 and 3.3: the date, tools in the system turn or in the user's, trimmed content.
LLAMA3 = """\
{{- bos_token }}
{%- if custom_tools is defined %}
    {%- set tools = custom_tools %}
{%- endif %}
{%- if not tools_in_user_message is defined %}
    {%- set tools_in_user_message = true %}
{%- endif %}
{%- if not date_string is defined %}
    {%- if strftime_now is defined %}
        {%- set date_string = strftime_now("%d %b %Y") %}
    {%- else %}
        {%- set date_string = "1 May 2024" %}
    {%- endif %}
{%- endif %}
{%- if not tools is defined %}
    {%- set tools = none %}
{%- endif %}

{#- What the system turn says is taken out, so that it stands in the right place. #}
{%- if messages[0]['role'] == 'system' %}
    {%- set system_message = messages[0]['content']|trim %}
    {%- set messages = messages[1:] %}
{%- else %}
    {%- set system_message = "" %}
{%- endif %}

{{- "<|header|>system<|/header|>\\n\\n" }}
{%- if builtin_tools is defined or tools is not none %}
    {{- "Environment: python\\n" }}
{%- endif %}
{%- if builtin_tools is defined %}
    {{- "Tools: " + builtin_tools | reject('equalto', 'code') | join(", ") + "\\n\\n"}}
{%- endif %}
{{- "Known until: May 2023\\n" }}
{{- "Today: " + date_string + "\\n\\n" }}
{%- if tools is not none and not tools_in_user_message %}
    {%- for t in tools %}
        {{- t | tojson(indent=4) }}
        {{- "\\n\\n" }}
    {%- endfor %}
{%- endif %}
{{- system_message }}
{{- "<|turn|>" }}

{%- for message in messages %}
    {%- if not (message.role == 'tool' or 'tool_calls' in message) %}
        {{- '<|header|>' + message['role'] + '<|/header|>\\n\\n'+ message['content'] | trim + '<|turn|>' }}
    {%- elif 'tool_calls' in message %}
        {%- if not message.tool_calls|length == 1 %}
            {{- raise_exception("One call at a time!") }}
        {%- endif %}
        {%- for name, value in message.tool_calls[0].arguments | items %}
            {{- name + '="' + value + '"' }}
            {%- if not loop.last %}
                {{- ", " }}
            {%- endif %}
        {%- endfor %}
    {%- endif %}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|header|>assistant<|/header|>\\n\\n' }}
{%- endif %}
"""
# Mistral: turns must alternate, which a counter in a namespace checks.
MISTRAL = """\
{%- if messages[0]["role"] == "system" %}
    {%- set system_message = messages[0]["content"] %}
    {%- set loop_messages = messages[1:] %}
{%- else %}
    {%- set loop_messages = messages %}
{%- endif %}
{%- set user_messages = loop_messages | selectattr("role", "equalto", "user") | list %}
{%- set ns = namespace() %}
{%- set ns.index = 0 %}
{%- for message in loop_messages %}
    {%- if not (message.role == "tool" or (message.tool_calls is defined and message.tool_calls is not none)) %}
        {%- if (message["role"] == "user") != (ns.index % 2 == 0) %}
            {{- raise_exception("turns of user and assistant must alternate") }}
        {%- endif %}
        {%- set ns.index = ns.index + 1 %}
    {%- endif %}
{%- endfor %}
{{- bos_token }}
{%- for message in loop_messages %}
    {%- if message["role"] == "user" %}
        {%- if tools is not none and (message == user_messages[-1]) %}
            {{- "[TOOLS] " + tools|tojson }}
        {%- endif %}
        {%- if loop.last and system_message is defined %}
            {{- "[ASK] " + system_message + "\\n\\n" + message["content"] + "[/ASK]" }}
        {%- else %}
            {{- "[ASK] " + message["content"] + "[/ASK]" }}
        {%- endif %}
    {%- elif message["role"] == "assistant" %}
        {{- " " + message["content"]|trim + eos_token}}
    {%- else %}
        {{- raise_exception("only user and assistant speak") }}
    {%- endif %}
{%- endfor %}
"""
# LLaVA-1.5 and 1.6 with Vicuna: pictures first, the answer between marks of its own.
VICUNA = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{# Pictures first #}{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<pad>\n' }}"
    "{% endfor %}{# Then the text #}{% if message['role'] != 'assistant' %}{% for content in message['content'] | "
    "selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}{% endfor %}{% else %}{% for content in "
    "message['content'] | selectattr('type', 'equalto', 'text') %}{% generation %}{{ content['text'] + ' '}}"
    "{% endgeneration %}{% endfor %}{% endif %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
# LLaVA-1.6 with Mistral: parts, and turns in brackets.
LLAVA_MISTRAL = (
    "{% for message in messages %}{% if message['role'] == 'system' %}{{ '<<SYS>>\n' + message['content'][0]['text'] + "
    "'\n<</SYS>>\n\n' }}{% elif message['role'] == 'user' %}{{ '[ASK] ' }}{% for content in message['content'] | "
    "selectattr('type', 'equalto', 'image') %}{{ '<pad>\n' }}{% endfor %}{% for content in message['content'] | "
    "selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}{{' [/ASK]' }}{% elif message['role'] == "
    "'assistant' %}{{ ' ' + message['content'][0]['text'] + '</s> ' }}{% else %}{{ raise_exception('who speaks?') }}"
    "{% endif %}{% endfor %}"
)
# LLaVA-1.6 with Yi-34B.
LLAVA_YI = (
    "{% for message in messages %}{{'<|begin|>' + message['role'] + '\n'}}{% for content in message['content'] | "
    "selectattr('type', 'equalto', 'image') %}{{ '<pad>\n' }}{% endfor %}{% if message['role'] != 'assistant' %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] }}{% endfor %}"
    "{% else %}{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{% generation %}"
    "{{ content['text'] }}{% endgeneration %}{% endfor %}{% endif %}{{'<|end|>'}}{% endfor %}{% if "
    "add_generation_prompt %}{{ '<|begin|>assistant\n' }}{% endif %}"
)
# InternVL2 and 2.5, original layout: text only.
INTERNVL2 = (
    "{{ bos_token }}{% for message in messages %}{{'<|begin|>' + message['role'] + '\n' + message['content'] + '<|end|>' "
    "+ '\n'}}{% endfor %}{% if add_generation_prompt %}{{ '<|begin|>assistant\n' }}{% endif %}"
)
# InternVL3 in the -hf layout.
INTERNVL3 = """\
{% for message in messages %}{{'<|begin|>' + message['role'] + '\\n'}}{% if message['content'] is string %}{{ message['content'] }}{% else %}{% for content in message['content'] %}
{% if content['type'] == 'image' %}
{{ '<pad>\\n' }}
{% elif content['type'] == 'video' %}
{{ '<film>\\n' }}
{% elif content['type'] == 'text' %}
{{ content['text'] }}
{% endif %}
{% endfor %}{% endif %}{{'<|end|>\\n'}}{% endfor %}{% if add_generation_prompt %}{{'<|begin|>assistant\\n' }}{% endif %}
"""
# Idefics3 and SmolVLM: a colon with or without a space after it.
IDEFICS3 = (
    "<|begin|>{% for message in messages %}{{message['role'] | capitalize}}{% if message['content'][0]['type'] == "
    "'image' %}{{':'}}{% else %}{{': '}}{% endif %}{% for line in message['content'] %}{% if line['type'] == 'text' %}"
    "{{line['text']}}{% elif line['type'] == 'image' %}{{ '<pad>' }}{% endif %}{% endfor %}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}{{ 'Assistant:' }}{% endif %}"
)

TOKENS = dict(bos_token="<s>", eos_token="</s>")
# Template, what content it takes, special tokens.
TEMPLATES = {
    "qwen2-vl": (QWEN2_VL, "parts", {"eos_token": "<|end|>"}),
    "qwen3-vl": (QWEN3_VL, "parts", {"eos_token": "<|end|>"}),
    "qwen2.5": (QWEN25, "text", {"eos_token": "<|end|>"}),
    "qwen3": (QWEN3, "text", {"eos_token": "<|end|>"}),
    "llama3": (LLAMA3, "text", {"bos_token": "<|first|>", "eos_token": "<|turn|>"}),
    "mistral": (MISTRAL, "text", TOKENS),
    "vicuna": (VICUNA, "parts", TOKENS),
    "llava-mistral": (LLAVA_MISTRAL, "parts", TOKENS),
    "llava-yi": (LLAVA_YI, "parts", TOKENS),
    "internvl2": (INTERNVL2, "text", TOKENS),
    "internvl3": (INTERNVL3, "parts", {"eos_token": "<|end|>"}),
    "idefics3": (IDEFICS3, "parts", {"bos_token": "<|begin|>", "eos_token": "<end_of_turn>"}),
}
# User and assistant in turn; `None` is a picture.
CONVERSATIONS = [
    [["Is a cat visible?"]],
    [[None, "  Is it <b>\"caf\u00e9\" \u96ea</b> & {{ messages }}?\n\n"]],
    [[None, "What do you see?"], ["\n A dog. "], ["Sum up.\u00a0"]],
    [["Is it safe?"], ["<think>\nPerhaps.\n</think>\n\nYes."], ["<answer>Why?</answer>"]],
]
# The date must not depend on the day, and a judge answers at once.
VARIABLES = dict(date_string="1 May 2024", enable_thinking=False)

MESSAGES = [
    {"role": "system", "content": " Be brief.\n"},
    {"role": "user", "content": [{"type": "image"}, {"type": "text", "text": "a,b,,c"}]},
    {"role": "assistant", "content": "Yes", "calls": {"size": 3, "name": "look", "deep": [1, 2.5, None, True, {}, []]}},
]
CONSTRUCTS = [
    # Whitespace, comments, raw text.
    "a\n  {% if true %}\n    b  {%- if true %} c {% endif -%}  \n d\n  {%+ endif %}\n e\n",
    "a {# gone #}\nb\n  {# gone #}  \nc {#- gone -#} d\n{{ 1 }}\n\n",
    "{% raw %}{{ x }} {% y %}{% endraw %}\n  {{- ' z' }}\r\nend\r\n",
    "  {% for i in range(2) %}\n\t{{ i }}\n  {% endfor %}",
    # Loops.
    "{% for m in messages %}{{ loop.index }}{{ loop.index0 }}{{ loop.revindex }}{{ loop.first }}{{ loop.last }}{{ loop.length }};{% endfor %}",
    "{% for m in messages %}{{ loop.previtem.role if loop.previtem is defined else '-' }}{{ loop.nextitem.role if loop.nextitem is defined else '-' }},{% endfor %}",
    "{% for i in range(9) %}{% if i == 1 %}{% continue %}{% endif %}{% if i > 4 %}{% break %}{% endif %}{{ i }}{% endfor %}",
    "{% for i in range(5, 0, -2) %}{{ i }}{% else %}none{% endfor %}{% for i in [] %}x{% else %}none{% endfor %}",
    "{% for m in messages if m.role != 'system' %}{{ m.role }}{{ loop.index }}{% endfor %}",
    "{% for key, value in messages[2].calls.items() %}{{ key }}{% if key != 'deep' %}={{ value }}{% endif %} {% endfor %}",
    "{% for key in messages[2].calls %}{{ key }} {% endfor %}{{ messages[2].calls.keys() | list | length }}{{ messages[2].calls | length }}",
    "{% for c in 'abc' %}{{ loop.cycle('x', 'y') }}{{ c }}{% endfor %}",
    # Scopes.
    "{% set x = 1 %}{% for i in range(2) %}{% set x = 2 %}{% endfor %}{{ x }}{% if true %}{% set x = 3 %}{% endif %}{{ x }}",
    "{% set ns = namespace(n=0, s='') %}{% for i in range(3) %}{% set ns.n = ns.n + i %}{% set ns.s = ns.s ~ i %}{% endfor %}{{ ns.n }}{{ ns.s }}",
    "{% set text %}a {{ 1 + 1 }}{% endset %}[{{ text }}]{% with a = 1, b = 2 %}{{ a + b }}{% endwith %}",
    "{% macro m(a, b='z') %}<{{ a }}{{ b }}>{% endmacro %}{{ m('x') }}{{ m('x', b='y') }}{{ m(b='1', a='2') }}",
    "{% macro w() %}({{ caller() }}){% endmacro %}{% call w() %}in{% endcall %}{% filter upper %}up{% endfilter %}",
    "a\n  {%- generation -%}\n {% set x = 1 %}b{{ x }}{%+ endgeneration %}\nc{{ x is defined }}",
    # Texts.
    "{{ ' a b '.strip() + '|' + ' a'.lstrip() + '|' + 'a '.rstrip() + '|' + 'xaxx'.strip('x') + '|' + 'abcba'.rstrip('ab') }}",
    "{{ '\\x1c\\x1f a\\u2003\\x85'.strip() }}|{{ '\\x1e a' | trim }}|{{ 'xax' | trim('x') }}",
    "{{ 'a,b,,c'.split(',')[-1] }}{{ 'a,b,,c'.split(',') | length }}{{ ' a  b c '.split() | join('/') }}{{ 'a,b,c'.split(',', 1)[1] }}",
    "{{ ' a  b c '.split(none, 1)[1] }}|{{ 'a,b,c'.split(',', maxsplit=1)[-1] }}|{{ 'a,b,c'.rsplit(',', 1)[0] }}|{{ ''.split(',') | length }}{{ ''.split() | length }}",
    "{{ 'abc'.startswith('ab') }}{{ 'abc'.endswith(('x', 'c')) }}{{ 'abc'.find('c') }}{{ 'abcb'.count('b') }}{{ 'a-b'.replace('-', '+') }}",
    "{{ 'abc'.upper() }}{{ 'ABC'.lower() }}{{ 'a b'.title() }}{{ 'aBC'.capitalize() }}{{ 'aBC' | capitalize }}{{ 'aBC' | title }}",
    "{{ 'abc'[1:] }}{{ 'abc'[-1] }}{{ 'abcdef'[1:5:2] }}{{ 'abc'[::-1] }}{{ 'caf\u00e9\u96ea'[3:] }}",
    "{{ 'x.y'.removeprefix('x') }}{{ 'x.y'.removesuffix('y') }}{{ 'a=b=c'.partition('=')[2] }}{{ 'a=b=c'.rpartition('=')[0] }}{{ 'ab'.partition('=')[0] }}",
    "{{ 'a' 'b' ~ 1 ~ 'c' }}{{ '-' * 3 }}{{ '{} {}'.format('a', 1) }}{{ 'x\\'y\\t\\u00e9\\\\' }}",
    "{{ '1'.isdigit() }}{{ 'a1'.isalnum() }}{{ 'ab'.isalpha() }}{{ 'AB'.isupper() }}{{ ','.join(['a', 'b']) }}{{ 'a\\nb'.splitlines() | length }}",
    # Lists and mappings.
    "{{ messages[1:][0].role }}{{ messages[:-1] | length }}{{ messages[::-1][0].role }}{{ messages[-1]['role'] }}{{ (messages | last)['role'] }}",
    "{{ messages | map(attribute='role') | join(',') }}{{ messages | selectattr('calls', 'defined') | list | length }}{{ messages | rejectattr('role', 'equalto', 'user') | list | length }}",
    "{{ messages | selectattr('role', 'in', ['user', 'system']) | map(attribute='role') | list | join('+') }}{{ (messages | first).role }}",
    "{{ ['b', 'a'] | sort | join }}{{ [1, 2, 3] | sum }}{{ [3, 1] | max }}{{ (['a'] + ['b']) | length }}{{ {'a': 1}['a'] }}{{ {'a': 1}.get('b', 2) }}{{ {'a': 1}.get('b') is none }}",
    "{{ messages[2].get('calls').get('name') }}{{ 'calls' in messages[2] }}{{ 'calls' in messages[0] }}{{ 'a' in ['a'] }}{{ 'b' not in 'abc' }}",
    "{{ (1, 2)[1] }}{{ [[1, 2], [3, 4]][1][0] }}{{ ['a', 'b', 'c'] | reverse | join }}{{ [1, 1, 2] | unique | list | length }}{{ {'b': 1, 'a': 2} | dictsort | first | first }}",
    "{{ messages[0] | items | list | length }}{% for k, v in messages[0] | items %}{{ k }}{% endfor %}",
    # Tests, numbers, conditions.
    "{{ 'a' is string }}{{ 1 is number }}{{ [] is iterable }}{{ 'a' is iterable }}{{ {} is iterable }}{{ 1 is iterable }}{{ {} is mapping }}{{ [] is mapping }}",
    "{{ 'a' is sequence }}{{ [] is sequence }}{{ {} is sequence }}{{ 1 is sequence }}{{ none is none }}{{ x is undefined }}{{ x is none }}{{ true is true }}{{ false is false }}{{ 1 is true }}",
    "{{ 3 is odd }}{{ 4 is even }}{{ 4 is divisibleby(2) }}{{ 'A' is upper }}{{ 1 is eq(1) }}{{ 1 is boolean }}{{ true is boolean }}{{ true is integer }}{{ 1 is integer }}{{ 1.5 is float }}",
    "{{ 7 // 2 }}{{ 7 % 3 }}{{ 2 ** 3 }}{{ 7 / 2 }}{{ -7 // 2 }}{{ 1.0 }}{{ 5 | string }}{{ '5' | int + 1 }}{{ 2.5 | round | int }}{{ 3 | abs }}",
    "{{ none }}{{ true }}{{ false }}[{{ x }}]{{ x | default('d') }}{{ none | default('d', true) }}{{ '' or 'e' }}{{ 'a' if x }}{{ 'a' if not x else 'b' }}{{ 1 < 2 < 3 }}",
    "{{ x is defined and x.y }}{{ messages[0].x is defined }}{{ messages[0]['x'] }}{{ messages[9] is defined }}{{ not x }}{{ x == none }}{{ 'a' == 1 }}",
    "{% if x %}a{% elif messages %}b{% endif %}{% if [] %}a{% endif %}{% if 0 %}a{% endif %}{% if '' %}a{% endif %}{% if none %}a{% endif %}{% if {} %}a{% else %}z{% endif %}",
    # JSON.
    "{{ messages[2].calls | tojson }}{{ messages[2].calls | tojson(indent=2) }}{{ 'a\"\\\\\\n\\x01<\u00e9\u96ea\U0001f600\x7f>' | tojson }}",
    "{{ 'a<\u00e9\U0001f600\x7f>' | tojson(ensure_ascii=true) }}{{ {'b': 1, 'a': [1]} | tojson(sort_keys=true, separators=(',', ':')) }}{{ {} | tojson(indent=2) }}",
    "{{ [1, [2, {'a': none}]] | tojson(indent=1) }}{{ {1: 'x', 'y': 0.5} | tojson }}{{ [1.0, 100, 12345678.25, 0.001] | tojson }}{{ 'x' | tojson(false, 2) }}",
    # Refusals.
    "{{ raise_exception('no') }}",
    "{{ x.y }}",
    "{{ x + 'a' }}",
    "{{ 'a' + 1 }}",
    "{{ messages[0].content.nothing() }}",
    "{{ 'a'.split('') }}",
    "{{ x | tojson }}",
    "{{ messages.append(1) }}",
]


def conversation(turns, content):
    messages = []
    for i, parts in enumerate(turns):
        if content == "text":
            value = "".join("<pad>\n" if part is None else part for part in parts)
        else:
            value = [{"type": "image"} if part is None else {"type": "text", "text": part} for part in parts]
        messages.append({"role": ["user", "assistant"][i % 2], "content": value})
    return messages


def main():
    HERE.mkdir(exist_ok=True)
    chats = []
    for name, (template, content, tokens) in TEMPLATES.items():
        tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(models.BPE()), **tokens)
        cases = []
        for turns in CONVERSATIONS:
            text = tokenizer.apply_chat_template(
                conversation(turns, content), chat_template=template, tokenize=False, add_generation_prompt=True,
                **VARIABLES)
            cases.append(dict(turns=turns, text=text))
        chats.append(dict(name=name, content=content, tokens=tokens, template=template, cases=cases))
    constructs = []
    for source in CONSTRUCTS:
        try:
            text = render_jinja_template([MESSAGES], chat_template=source)[0][0]
        except Exception as error:
            print(f"refused: {source!r}: {type(error).__name__}: {error}")
            text = None
        constructs.append(dict(source=source, text=text))
    for name, value in {"chats": chats, "constructs": dict(messages=MESSAGES, cases=constructs)}.items():
        (HERE / f"{name}.json").write_text(json.dumps(value, indent=1, ensure_ascii=False) + "\n")
    for case in chats:
        print(case["name"], json.dumps(case["cases"][-1]["text"], ensure_ascii=False))


if __name__ == "__main__":
    main()
